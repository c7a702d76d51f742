"""Every Redis key of the registry.

All keys begin with `eh:{<name>}:`; the braces are a hash tag, so that on Redis Cluster they share one slot
and one script may touch them all. None has a Redis expiry: what lapses (endpoints, leadership) is held to
Redis time inside the scripts, where lapsing can be recorded as a change. `CATALOGUE` lists them all.
"""

from __future__ import annotations

from model_registry.key_catalogue import KeySpec
from model_registry.kinds import KINDS

CATALOGUE: tuple[KeySpec, ...] = (
    KeySpec("meta", "hash", "never", "which history, how far, its last change id", "every writer"),
    KeySpec("changes", "stream", "capped", "one record per version: what it changed", "every writer"),
    KeySpec("deadlines", "zset", "with the endpoint", "when endpoints lapse, ms", "leading controller"),
    KeySpec("leader", "hash", "by its until_ms", "who leads, until when, fencing token", "controllers"),
    KeySpec("history", "hash", "capped", "kind/name -> last versions, as a JSON list", "operators"),
    KeySpec("model", "hash", "never", "name -> JSON document", "operators"),
    KeySpec("deployment", "hash", "never", "name -> JSON document", "operators"),
    KeySpec("endpoint", "hash", "by deadlines", "name -> JSON document", "leading controller"),
    KeySpec("tenant", "hash", "never", "name -> JSON document", "operators"),
    KeySpec("apikey", "hash", "never", "name -> JSON document", "operators"),
    KeySpec("adapter", "hash", "never", "name -> JSON document", "operators"),
    KeySpec("policy", "hash", "never", "name -> JSON document", "operators"),
    KeySpec("profile", "hash", "never", "name -> JSON document", "operators"),
    KeySpec("enginespec", "hash", "never", "name -> JSON document", "operators"),
    KeySpec("engine", "hash", "never", "name -> JSON document", "builders"),
    KeySpec("rollout", "hash", "never", "name -> JSON document", "operators"),
    KeySpec("rolloutstatus", "hash", "with the rollout", "name -> JSON document", "leading controller"),
    KeySpec("pool", "hash", "never", "name -> JSON document", "operators"),
    KeySpec("replica", "hash", "when stopped", "name -> JSON document", "leading controller"),
    KeySpec("scalingstatus", "hash", "with the deployment", "name -> JSON document", "leading controller"),
    KeySpec("drain", "hash", "never", "name -> JSON document", "operators"),
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
