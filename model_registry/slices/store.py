"""SliceStore: what is said about slices in Redis, by one script and one stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, NamedTuple, Self

from model_registry.config import RegistryConfig
from model_registry.connection import RedisClient, answer
from model_registry.slices.keys import Keys
from model_registry.slices.split import Share

_NEWS_AT_ONCE = 256


class Report(NamedTuple):
    """What a worker says of one slice."""

    name: str
    total: int
    window_s: float
    keep: int
    """What it goes on holding; it has stopped using the rest."""
    ask: int
    """What it would like beside that."""
    first: int
    """What it may hold while nothing new is granted, if it is new itself."""
    share: Share
    urgent: bool
    """Somebody waits: tell the others where there is not enough."""


class Grant(NamedTuple):
    """The answer about one slice."""

    held: int
    others: Mapping[str, Share]


class Answer(NamedTuple):
    """The answer to a report."""

    rank: int
    """This worker's place among all, from 0."""
    workers: int
    settles_in_s: float
    """For how long nothing new is granted yet."""
    grants: Sequence[Grant]


class SliceStore:
    """Raises RegistryUnavailableError or RegistryReadOnlyError when Redis does not serve."""

    def __init__(self, redis: RedisClient, name: str, answer_within_s: float) -> None:
        self._redis = redis
        self._keys = Keys(name)
        self._answer_within_s = answer_within_s
        source = (files("model_registry.slices") / "scripts" / "report.lua").read_text("utf-8")
        self._script = redis.register_script(source)

    @classmethod
    def of(cls, redis: RedisClient, config: RegistryConfig) -> Self:
        return cls(redis, config.name, config.command_timeout_s)

    async def report(
        self,
        worker: str,
        number: int,
        lease_s: float,
        gossip: str,
        reports: Sequence[Report],
        within_s: float,
    ) -> Answer:
        """Say what a worker holds and wants. A report with a lower `number` than one before is ignored.

        `lease_s` 0: the worker leaves.
        """
        keys = [*self._keys.shared, *(self._keys.resource(one.name) for one in reports)]
        args: list[str | int] = [worker, number, _ms(lease_s), gossip]
        for one in reports:
            share = one.share
            args += [one.name, one.total, _ms(one.window_s), one.keep, one.ask, one.first]
            args += [share.used, share.demand, f"{share.weight:.4f}", _ms(share.free_in_s), int(one.urgent)]
        async with answer(min(within_s, self._answer_within_s)):
            reply: Any = await self._script(keys=keys, args=args)
        rank, workers, settles_ms, *grants = reply
        return Answer(
            int(rank), max(1, int(workers)), int(settles_ms) / 1000, [_grant(*grant) for grant in grants]
        )

    async def newest(self) -> str:
        """The id of the last news."""
        async with answer(self._answer_within_s):
            reply: Any = await self._redis.xrevrange(self._keys.news, count=1)
        return str(reply[0][0]) if reply else "0-0"

    async def news(self, after: str, block_s: float) -> tuple[str, list[dict[str, str]]]:
        """News that follow the id `after`, with the id of the last; waits up to `block_s` for a first one."""
        async with answer(block_s + self._answer_within_s):
            reply: Any = await self._redis.xread(
                {self._keys.news: after}, count=_NEWS_AT_ONCE, block=_ms(block_s)
            )
        entries = reply[0][1] if reply else []
        return (str(entries[-1][0]) if entries else after), [fields for _, fields in entries]


def _grant(held: int, flat: Sequence[str]) -> Grant:
    others = {str(flat[i]): _share(str(flat[i + 1])) for i in range(0, len(flat), 2)}
    return Grant(int(held), others)


def _share(text: str) -> Share:
    used, demand, weight, held, free_in_ms = text.split()
    return Share(int(used), int(demand), float(weight), int(held), int(free_in_ms) / 1000)


def _ms(seconds: float) -> int:
    return max(0, round(seconds * 1000))
