"""Every Redis key of the registry.

All keys begin with `eh:{<name>}:`; the braces are a hash tag, so that on Redis Cluster they share one slot
and one script may touch them all. None has a Redis expiry: what lapses (endpoints, leadership) is held to
Redis time inside the scripts, where lapsing can be recorded as a change. `CATALOGUE` lists them all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from model_registry.kinds import KINDS


@dataclass(frozen=True, slots=True)
class KeySpec:
    """One row of the catalogue; `suffix` follows `eh:{<name>}:`."""

    suffix: str
    type: Literal["hash", "stream", "zset"]
    owner: str
    lapses: str
    meaning: str


CATALOGUE: tuple[KeySpec, ...] = (
    KeySpec("meta", "hash", "every writer", "never", "which history, how far, its last change id"),
    KeySpec("changes", "stream", "every writer", "capped", "one record per version: what it changed"),
    KeySpec("deadlines", "zset", "leading controller", "with the endpoint", "when endpoints lapse, ms"),
    KeySpec("leader", "hash", "controllers", "by its until_ms", "who leads, until when, fencing token"),
    KeySpec("history", "hash", "operators", "capped", "kind/name -> last versions, as a JSON list"),
    KeySpec("model", "hash", "operators", "never", "name -> JSON document"),
    KeySpec("deployment", "hash", "operators", "never", "name -> JSON document"),
    KeySpec("endpoint", "hash", "leading controller", "by deadlines", "name -> JSON document"),
    KeySpec("tenant", "hash", "operators", "never", "name -> JSON document"),
    KeySpec("apikey", "hash", "operators", "never", "name -> JSON document"),
    KeySpec("adapter", "hash", "operators", "never", "name -> JSON document"),
    KeySpec("policy", "hash", "operators", "never", "name -> JSON document"),
    KeySpec("profile", "hash", "operators", "never", "name -> JSON document"),
    KeySpec("enginespec", "hash", "operators", "never", "name -> JSON document"),
    KeySpec("engine", "hash", "builders", "never", "name -> JSON document"),
    KeySpec("rollout", "hash", "operators", "never", "name -> JSON document"),
    KeySpec("rolloutstatus", "hash", "leading controller", "with the rollout", "name -> JSON document"),
    KeySpec("pool", "hash", "operators", "never", "name -> JSON document"),
    KeySpec("replica", "hash", "leading controller", "when stopped", "name -> JSON document"),
    KeySpec("scalingstatus", "hash", "leading controller", "with the deployment", "name -> JSON document"),
    KeySpec("drain", "hash", "operators", "never", "name -> JSON document"),
)

KIND_INDEX = {kind: index for index, kind in enumerate(KINDS, start=1)}
"""Place of a kind's hash among a script's keys, after the five shared ones."""


class Keys:
    """The key names of one registry."""

    def __init__(self, name: str) -> None:
        self._prefix = f"eh:{{{name}}}:"
        self.changes = self.of("changes")
        self.meta = self.of("meta")
        self.all = [self.of(suffix) for suffix in ("meta", "changes", "deadlines", "leader", "history")]
        """In the order in which every script takes them."""
        self.all += [self.of(kind.lower()) for kind in KINDS]

    def of(self, suffix: str) -> str:
        """The whole key of a catalogue row."""
        return self._prefix + suffix

    def spec(self, key: str) -> KeySpec | None:
        """The catalogue row of a key; None for a foreign one."""
        return next((row for row in CATALOGUE if self.of(row.suffix) == key), None)
