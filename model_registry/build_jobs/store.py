"""BuildStore: engine builds in Redis, changed by short scripts.

Every method raises RegistryUnavailableError when Redis is away, slow or refuses to write; a write may then
have happened, and all of them may be said again.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing, suppress
from secrets import token_hex
from typing import Any, NamedTuple, Self

import msgspec

from model_registry.build_jobs.entities import (
    Able,
    AskedBuild,
    BuildClaim,
    BuildError,
    BuilderSeen,
    BuildProgress,
    BuildState,
    EngineBuild,
    LogLine,
)
from model_registry.build_jobs.errors import BuildClaimLostError, BuildOverError, UnknownBuildError
from model_registry.build_jobs.keys import Keys
from model_registry.build_jobs.scripting import scripts
from model_registry.config import RegistryConfig
from model_registry.connection import RedisClient, answer

LOG_LINES = 2000
"""Of a build, kept in Redis; builders have the rest on disk."""
_AT_ONCE = 100
_BUILDERS_S = 7 * 24 * 3600.0
"""How long it is known that there was a builder."""


class _Said(msgspec.Struct, frozen=True):
    """By a builder."""

    at_ms: int
    able: Able
    build: str


class Terms(NamedTuple):
    """How builds are dealt with."""

    attempts: int = 3
    """Claims after which a build has failed, when none of them came to an end."""
    retention_s: float = 7 * 24 * 3600.0
    """How long ended builds are remembered."""


class LogPage(NamedTuple):
    """Lines of a log, and where the next page begins."""

    lines: list[LogLine]
    after: str


class BuildStore:
    """Builds of the registry called `name`; `redis` comes from `connect`."""

    def __init__(
        self, redis: RedisClient, name: str, answer_within_s: float, terms: Terms | None = None
    ) -> None:
        self._redis = redis
        self._keys = Keys(name)
        self._scripts = scripts(redis, answer_within_s)
        self._answer_within_s = answer_within_s
        self._terms = terms or Terms()

    @classmethod
    def of(cls, redis: RedisClient, config: RegistryConfig, terms: Terms | None = None) -> Self:
        """The builds of the registry that `config` describes."""
        return cls(redis, config.name, config.command_timeout_s, terms)

    # -- for those who ask --------------------------------------------------------------------------------

    async def ask(self, asked: AskedBuild) -> EngineBuild:
        """A build of that engine: the one that goes on, or a new one that waits for a builder."""
        new = f"build-{token_hex(6)}"
        document = msgspec.json.encode(asked).decode()
        build_id = await self._scripts.run("ask", self._keys.of(new), new, asked.digest, document)
        return await self.get(str(build_id))

    async def get(self, build_id: str) -> EngineBuild:
        """One build. Raises UnknownBuildError."""
        found = await self._read((build_id,))
        if not found:
            raise UnknownBuildError(build_id)
        return found[0]

    async def newest(self, limit: int = _AT_ONCE) -> list[EngineBuild]:
        """The builds, the newest first."""
        async with answer(self._answer_within_s):
            ids: Any = await self._redis.zrevrange(self._keys.all, 0, limit - 1)
        return await self._read(map(str, ids))

    async def unfinished(self) -> list[EngineBuild]:
        """Those that wait or are under way, in no order that matters."""
        async with answer(self._answer_within_s):
            ids: Any = await self._redis.zrange(self._keys.open, 0, -1)
        return await self._read(map(str, ids))

    async def log(self, build_id: str, after: str = "0-0", limit: int = 500) -> LogPage:
        """The lines that follow `after`, of those that are kept; none of an unknown build."""
        async with answer(self._answer_within_s):
            found: Any = await self._redis.xrange(self._keys.log(build_id), f"({after}", "+", count=limit)
        lines = [LogLine(fields["step"], fields["text"]) for _, fields in found]
        return LogPage(lines, str(found[-1][0]) if found else after)

    async def builders(self) -> list[BuilderSeen]:
        """Those that are there or were, the last seen first."""
        async with answer(self._answer_within_s):
            found: Any = await self._redis.hgetall(self._keys.builders)
        now_ms, seen = await self._now_ms(), []
        for name, document in found.items():
            with suppress(msgspec.DecodeError):  # of a builder of another release
                said = msgspec.json.decode(document, type=_Said)
                age_s = max(0, now_ms - said.at_ms) / 1000
                seen.append(BuilderSeen(str(name), said.able, said.build, age_s))
        return sorted(seen, key=lambda one: one.age_s)

    async def cancel(self, build_id: str) -> EngineBuild:
        """Ask for its end. Raises UnknownBuildError, BuildOverError."""
        keys = self._keys.of(build_id)
        state = str(await self._scripts.run("cancel", keys, build_id, _ms(self._terms.retention_s)))
        if state == "":
            raise UnknownBuildError(build_id)
        if state not in {"queued", "running"}:
            raise BuildOverError(build_id, state)
        return await self.get(build_id)

    # -- for builders -------------------------------------------------------------------------------------

    async def present(self, worker: str, able: Able, build: str = "") -> None:
        """`worker` is there and can do this; `build`: what it works on."""
        said = _Said(await self._now_ms(), able, build)
        async with answer(self._answer_within_s):
            await self._redis.hset(self._keys.builders, worker, _json(said))

    async def claim(self, worker: str, able: Able, lease_s: float) -> BuildClaim | None:
        """The oldest build that `worker` can do and nobody holds, for `lease_s`; None when there is none."""
        async with aclosing(self._claimable()) as claimable:
            async for build in claimable:
                if not able.fits(build.asked):
                    continue
                keys, terms = self._keys.of(build.id), self._terms
                error = _json(build.error or _DIED)
                args = (build.id, worker, _ms(lease_s), terms.attempts, error, _ms(terms.retention_s))
                holder = str(await self._scripts.run("claim", keys, *args))
                if holder:
                    return BuildClaim(await self.get(build.id), holder)
        return None

    async def beat(
        self,
        claim: BuildClaim,
        lease_s: float,
        progress: BuildProgress | None = None,
        lines: Sequence[LogLine] = (),
    ) -> bool:
        """Hold it for `lease_s` from now, and say how far it is; False: somebody asked for its end.

        Raises BuildClaimLostError.
        """
        shown = "" if progress is None else _json(progress)
        flat = [part for line in lines for part in (line.step, line.text)]
        return await self._held("beat", claim, _ms(lease_s), shown, LOG_LINES, *flat) == "ok"

    async def release(
        self, claim: BuildClaim, error: BuildError | None = None, *, delay_s: float = 0.0, counts: bool
    ) -> None:
        """Let others have it after `delay_s`; `counts`: as an attempt. Raises BuildClaimLostError."""
        why = "" if error is None else _json(error)
        terms = self._terms
        args = (int(delay_s * 1000), int(counts), why, terms.attempts, _ms(terms.retention_s))
        await self._held("release", claim, *args)

    async def finish(self, claim: BuildClaim, state: BuildState, error: BuildError | None = None) -> None:
        """It has ended. Raises BuildClaimLostError."""
        why = "" if error is None else _json(error)
        await self._held("finish", claim, state, why, _ms(self._terms.retention_s))

    async def forget_ended(self) -> int:
        """Forget ended builds past their time; returns how many."""
        async with answer(self._answer_within_s):
            ids: Any = await self._redis.zrange(self._keys.ended, 0, _AT_ONCE - 1)
        gone = 0
        for build_id in map(str, ids):
            if not await self._scripts.run("forget", self._keys.of(build_id), build_id):
                break
            gone += 1
        long_gone = [one.name for one in await self.builders() if one.age_s > _BUILDERS_S]
        if long_gone:
            async with answer(self._answer_within_s):
                await self._redis.hdel(self._keys.builders, *long_gone)
        return gone

    # -- inner --------------------------------------------------------------------------------------------

    async def _claimable(self) -> AsyncGenerator[EngineBuild]:
        """All that nobody holds, the oldest first, by pages: nobody may be able to do the first of them."""
        now_ms, start = await self._now_ms(), 0
        while True:
            async with answer(self._answer_within_s):
                ids: Any = await self._redis.zrangebyscore(
                    self._keys.open, "-inf", now_ms, start=start, num=_AT_ONCE
                )
            for build in await self._read(map(str, ids)):
                yield build
            if len(ids) < _AT_ONCE:
                return
            start += _AT_ONCE

    async def _now_ms(self) -> int:
        async with answer(self._answer_within_s):
            now: Any = await self._redis.time()
        return int(now[0]) * 1000 + int(now[1]) // 1000

    async def _read(self, ids: Iterable[str]) -> list[EngineBuild]:
        wanted = list(ids)
        async with answer(self._answer_within_s):
            pipe = self._redis.pipeline(transaction=False)
            for build_id in wanted:
                pipe.hgetall(self._keys.build(build_id))
            found: Any = await pipe.execute() if wanted else []
        return [
            EngineBuild.of(build_id, fields) for build_id, fields in zip(wanted, found, strict=True) if fields
        ]

    async def _held(self, script: str, claim: BuildClaim, *args: str | int) -> str:
        build_id = claim.build.id
        reply = str(await self._scripts.run(script, self._keys.of(build_id), build_id, claim.holder, *args))
        if reply == "lost":
            raise BuildClaimLostError(f"another builder has {build_id} by now; this write was refused")
        return reply


_DIED = BuildError(
    "every builder that took it went away before it was done",
    "look at the builders' logs and at `dmesg` (memory), then ask for it again",
)


def _json(value: msgspec.Struct) -> str:
    return msgspec.json.encode(value).decode()


def _ms(seconds: float) -> int:
    return max(1, int(seconds * 1000))
