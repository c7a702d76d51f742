"""Every Redis key of gateways' demand reports.

All keys begin with `eh:{<name>:demand}:`; the braces are a hash tag, so that on Redis Cluster they share one
slot. What is lost is told again with the workers' next reports, but for what ended workers had counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class KeySpec:
    """One row of the catalogue; `suffix` follows `eh:{<name>:demand}:`."""

    suffix: str
    type: Literal["hash", "zset", "stream"]
    meaning: str


CATALOGUE: tuple[KeySpec, ...] = (
    KeySpec("reports", "hash", "worker -> ms of its report by Redis' clock, and the report as JSON"),
    KeySpec("workers", "zset", "worker -> ms of its report; 0: it has said that it ends"),
    KeySpec("ended", "hash", "<groups or endpoints>|<name>|<count> -> what ended workers had counted"),
    KeySpec("calls", "stream", "one entry for each urgent report: which worker; capped"),
)
"""Each lapses by Redis expiry, a week after the last report."""


class Keys:
    """The key names of one registry's demand."""

    def __init__(self, name: str) -> None:
        prefix = f"eh:{{{name}:demand}}:"
        self.all = [prefix + row.suffix for row in CATALOGUE]
        """In the order in which every script takes them."""
        self.reports, self.workers, self.ended, self.calls = self.all
