"""KvFeedStore: whose turn it is to read a server's KV events, and what the readers tell."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, NamedTuple, Self

from model_registry.config import RegistryConfig
from model_registry.connection import RedisClient, answer
from model_registry.kv_feed.keys import Keys

_KEPT_CHANGES = 1024
_OUTLIVES_S = 600.0
_AT_ONCE = 256


class Turn(NamedTuple):
    """Whether a worker reads a server's events, and if not, how fresh what the reader tells is."""

    reads: bool
    age_s: float | None
    """Since the server was last read; None: nobody has yet."""


class Told(NamedTuple):
    """What a reader told of one server."""

    last: str
    """Where to go on."""
    changes: Sequence[bytes]


class KvFeedStore:
    """Raises RegistryUnavailableError or RegistryReadOnlyError when Redis does not serve."""

    def __init__(self, redis: RedisClient, name: str, answer_within_s: float) -> None:
        self._redis = redis
        self._keys = Keys(name)
        self._answer_within_s = answer_within_s
        source = (files("model_registry.kv_feed") / "scripts" / "turn.lua").read_text("utf-8")
        self._script = redis.register_script(source)

    @classmethod
    def of(cls, redis: RedisClient, config: RegistryConfig) -> Self:
        return cls(redis, config.name, config.command_timeout_s)

    async def turn(self, server: str, worker: str, lease_s: float, change: bytes = b"") -> Turn:
        """Take or keep the turn to read `server`, and tell a change. `lease_s` 0: leave it to others.

        A change of a worker whose turn it is not any more is told to nobody.
        """
        keys = [self._keys.reader(server), self._keys.changes(server)]
        args: list[str | int] = [worker, round(lease_s * 1000), b64encode(change).decode()]
        args += [_KEPT_CHANGES, round(_OUTLIVES_S * 1000)]
        async with answer(self._answer_within_s):
            reads, age_ms = await self._script(keys=keys, args=args)
        return Turn(bool(reads), None if int(age_ms) < 0 else int(age_ms) / 1000)

    async def changes(self, after: Mapping[str, str], block_s: float | None = None) -> Mapping[str, Told]:
        """What was told of each server since the given place ("0" is the beginning).

        Waits up to `block_s` for a first change; None: not at all.
        """
        streams: dict[Any, Any] = {self._keys.changes(server): last for server, last in after.items()}
        servers = dict(zip(streams, after, strict=True))
        block = None if block_s is None else max(1, round(block_s * 1000))
        async with answer((block_s or 0.0) + self._answer_within_s):
            reply: Any = await self._redis.xread(streams, count=_AT_ONCE, block=block)
        return {
            servers[key]: Told(str(entries[-1][0]), [b64decode(fields["change"]) for _, fields in entries])
            for key, entries in reply or ()
        }
