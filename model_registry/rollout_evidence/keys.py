"""Every Redis key of rollouts' evidence.

All keys begin with `eh:{<name>:rollouts}:`; the braces are a hash tag, so that on Redis Cluster they share
one slot. What is lost is told again with the workers' next reports, but for workers that are gone.
"""

from __future__ import annotations

from model_registry.key_catalogue import KeySpec

CATALOGUE: tuple[KeySpec, ...] = (
    KeySpec(
        "evidence:<rollout>",
        "hash",
        "by Redis expiry, a week after the last report",
        "worker -> ms of its report by Redis' clock, epoch, and all it has counted in it, as JSON",
    ),
)


class Keys:
    """The key names of one registry's rollouts."""

    def __init__(self, name: str) -> None:
        self._prefix = f"eh:{{{name}:rollouts}}:"

    def evidence(self, rollout: str) -> str:
        """The hash with every worker's report."""
        return f"{self._prefix}evidence:{rollout}"
