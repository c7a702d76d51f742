"""Every Redis key of engine builds.

All keys begin with `eh:{<name>}:`, as the registry's own do: one slot on Redis Cluster, so that the script
which stores an engine can look at who holds its build. None has a Redis expiry: claims lapse by Redis time
inside the scripts, and ended builds are forgotten by builders.
"""

from __future__ import annotations

from model_registry.key_catalogue import KeySpec

CATALOGUE: tuple[KeySpec, ...] = (
    KeySpec("builds", "zset", "with the builds", "all builds by creation, ms"),
    KeySpec("builds-open", "zset", "with the build's end", "builds by when they may be claimed, ms"),
    KeySpec("builds-by-digest", "hash", "with the build's end", "engine digest -> its build that goes on"),
    KeySpec("builds-ended", "zset", "with the builds", "ended builds by when they are forgotten, ms"),
    KeySpec("builders", "hash", "with age", "builder -> when it was there, ms; what it can do, and does"),
    KeySpec("build:<id>", "hash", "swept", "one build: what was asked, state, holder, progress, times"),
    KeySpec("build-log:<id>", "stream", "capped, and swept", "the last lines of its steps"),
)


class Keys:
    """The key names of the builds of one registry."""

    def __init__(self, name: str) -> None:
        self._prefix = f"eh:{{{name}}}:"
        self.all = self._prefix + "builds"
        self.open = self._prefix + "builds-open"
        self.by_digest = self._prefix + "builds-by-digest"
        self.ended = self._prefix + "builds-ended"
        self.builders = self._prefix + "builders"

    def build(self, build_id: str) -> str:
        """One build's hash."""
        return f"{self._prefix}build:{build_id}"

    def log(self, build_id: str) -> str:
        """One build's log."""
        return f"{self._prefix}build-log:{build_id}"

    def of(self, build_id: str) -> list[str]:
        """What the scripts about one build take, in their order."""
        return [self.build(build_id), self.log(build_id), self.all, self.open, self.by_digest, self.ended]
