"""Every Redis key of slices.

All keys begin with `eh:{<name>:slices}:`; the braces are a hash tag, so that on Redis Cluster they share one
slot, another than the registry's, and one script may touch them all. Nothing here is worth keeping: what is
lost is learned again from the workers' next reports.
"""

from __future__ import annotations

from model_registry.key_catalogue import KeySpec

CATALOGUE: tuple[KeySpec, ...] = (
    KeySpec("beat", "hash", "never", "when any worker was last heard, ms; until when nothing new is granted"),
    KeySpec("workers", "zset", "by age", "worker -> when it was last heard, ms"),
    KeySpec("news", "stream", "capped", "who is short of what, and the workers' gossip"),
    KeySpec(
        "of:<resource>",
        "hash",
        "by Redis expiry, two lifetimes of a slice after the last report",
        "worker -> held, lapses at ms, report number, used, demand, weight, ms until a part is free again",
    ),
)


class Keys:
    """The key names of the slices of one registry."""

    def __init__(self, name: str) -> None:
        self._prefix = f"eh:{{{name}:slices}}:"
        self.news = self._prefix + "news"
        self.shared = [self._prefix + "beat", self._prefix + "workers", self.news]
        """In the order in which the script takes them."""

    def resource(self, name: str) -> str:
        """The hash of one resource's slices."""
        return f"{self._prefix}of:{name}"
