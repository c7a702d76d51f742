"""Every Redis key of KV feeds.

All keys begin with `eh:{<name>:kv}:`; the braces are a hash tag, so that on Redis Cluster they share one slot
and one command may read them all. Nothing here is worth keeping: what is lost is learned again.
"""

from __future__ import annotations

from model_registry.key_catalogue import KeySpec

CATALOGUE: tuple[KeySpec, ...] = (
    KeySpec(
        "reader:<server>",
        "hash",
        "by Redis expiry, 10 minutes after the last reading",
        "which worker reads the server's events, until when, and when it last did, ms",
    ),
    KeySpec(
        "changes:<server>",
        "stream",
        "capped; by Redis expiry, 10 minutes after the last reading",
        "what followed from the events: hashes of blocks that came and went, no tokens",
    ),
)


class Keys:
    """The key names of the KV feeds of one registry."""

    def __init__(self, name: str) -> None:
        self._prefix = f"eh:{{{name}:kv}}:"

    def reader(self, server: str) -> str:
        """The hash that says who reads a server's events."""
        return f"{self._prefix}reader:{server}"

    def changes(self, server: str) -> str:
        """The stream of what followed from them."""
        return f"{self._prefix}changes:{server}"
