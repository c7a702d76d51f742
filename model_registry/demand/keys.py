"""Every Redis key of gateways' demand reports.

All keys begin with `eh:{<name>:demand}:`; the braces are a hash tag, so that on Redis Cluster they share one
slot. What is lost is told again with the workers' next reports, but for what ended workers had counted.
"""

from __future__ import annotations

from model_registry.key_catalogue import KeySpec

_WEEK = "by Redis expiry, a week after the last report"
CATALOGUE: tuple[KeySpec, ...] = (
    KeySpec("reports", "hash", _WEEK, "worker -> ms of its report by Redis' clock, and the report as JSON"),
    KeySpec("workers", "zset", _WEEK, "worker -> ms of its report; 0: it has said that it ends"),
    KeySpec("ended", "hash", _WEEK, "<groups or endpoints>|<name>|<count> -> what ended workers had counted"),
    KeySpec("calls", "stream", _WEEK, "one entry for each urgent report: which worker; capped"),
)


class Keys:
    """The key names of one registry's demand."""

    def __init__(self, name: str) -> None:
        prefix = f"eh:{{{name}:demand}}:"
        self.all = [prefix + row.suffix for row in CATALOGUE]
        """In the order in which every script takes them."""
        self.reports, self.workers, self.ended, self.calls = self.all
