"""DemandStore: gateway workers report what they see of the load, the controller reads the sum.

Who has not told for `lapses_s` by Redis' clock has no gauges in the sum; its counts stay in it for ever: they
are added to those of ended workers when it says that it ends, when somebody who knows says that it has, or
`ENDED_S` after its last report.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any, Self

import msgspec

from model_registry.config import RegistryConfig
from model_registry.connection import RedisClient, answer
from model_registry.demand.demand import (
    COUNTS,
    ENDED_S,
    LAPSES_S,
    Demand,
    EndpointDemand,
    GroupDemand,
    WorkerDemand,
    together,
)
from model_registry.demand.keys import Keys

_log = logging.getLogger(__name__)
_OUTLIVES_S = 7 * 86_400.0
_NAMES = json.dumps({kind: list(names) for kind, names in COUNTS.items()})
_WHOLE = frozenset(
    field.name
    for part in (GroupDemand, EndpointDemand)
    for field in msgspec.structs.fields(part)
    if field.type is int
)
"""Counts that are integers. Redis adds all up as floats, of which msgspec takes whole ones up to 2**53."""
_decode = msgspec.json.Decoder(WorkerDemand, strict=False).decode


class DemandStore:
    """Raises RegistryUnavailableError or RegistryReadOnlyError when Redis does not serve."""

    def __init__(
        self,
        redis: RedisClient,
        name: str,
        answer_within_s: float,
        ended_s: float = ENDED_S,
        lapses_s: float = LAPSES_S,
    ) -> None:
        """`lapses_s`: how old reports may be to say anything of now; below `ended_s`."""
        self._redis = redis
        self._keys = Keys(name)
        self._answer_within_s = answer_within_s
        self._ended_ms = round(ended_s * 1000)
        self._lapses_s = lapses_s
        folder = files("model_registry.demand") / "scripts"
        self._report, self._gather = (
            redis.register_script((folder / f"{script}.lua").read_text("utf-8"))
            for script in ("report", "gather")
        )

    @classmethod
    def of(cls, redis: RedisClient, config: RegistryConfig, lapses_s: float = LAPSES_S) -> Self:
        return cls(redis, config.name, config.command_timeout_s, lapses_s=lapses_s)

    async def report(
        self,
        worker: str,
        demand: WorkerDemand,
        urgent: bool = False,
        *,
        known: bool = False,
        ends: bool = False,
        gone: Sequence[str] = (),
    ) -> bool:
        """Take the place of what `worker` has told before. `urgent`: whoever waits in `called` hears of it.

        `known`: it was told before that an earlier report had been taken. False is returned then where it
        was silent for so long that it counts as ended: what it tells from now on must begin from there,
        under another name, `worker` with a dot and something behind it. `ends`: this is its last report.
        `gone`: other workers that have ended for certain, under whatever name.
        """
        document = msgspec.json.encode(demand).decode()
        flags = [int(known), int(ends), int(urgent)]
        args: list[str | int] = [worker, document, *flags, self._ended_ms, round(_OUTLIVES_S * 1000), _NAMES]
        args.append(json.dumps(list(gone)))
        async with answer(self._answer_within_s):
            return bool(await self._report(keys=self._keys.all, args=args))

    async def gather(self) -> Demand:
        """The sum of all reports; those that cannot be understood are passed over."""
        async with answer(self._answer_within_s):
            now_ms, values, ended = await self._gather(keys=self._keys.all, args=[])
        told: list[tuple[float, WorkerDemand]] = []
        for value in values:
            at_ms, document = str(value).split(" ", 1)
            try:
                told.append(((int(now_ms) - int(at_ms)) / 1000, _decode(document)))
            except msgspec.DecodeError as error:  # of a worker of another release
                _log.warning("demand report passed over", extra={"reason": str(error)})
        return together(int(now_ms) / 1000, told, _counts(ended), self._lapses_s)

    async def called(self, after: str, block_s: float) -> str:
        """The id of the last urgent report, waiting up to `block_s` for one after the id `after`.

        `$` stands for the last there is now; with `block_s` 0 nothing is waited for.
        """
        async with answer(block_s + self._answer_within_s):
            if after == "$" or block_s <= 0:
                newest: Any = await self._redis.xrevrange(self._keys.calls, count=1)
                after = str(newest[0][0]) if newest else "0-0"
            if block_s <= 0:
                return after
            reply: Any = await self._redis.xread(
                {self._keys.calls: after}, block=max(1, round(block_s * 1000))
            )
        return str(reply[0][1][-1][0]) if reply else after


def _counts(flat: Sequence[str]) -> WorkerDemand:
    """What ended workers had counted, as if one worker told it."""
    found: dict[str, dict[str, dict[str, float]]] = {"groups": {}, "endpoints": {}}
    for kind, name, count, value in _fields(flat):
        if count in COUNTS.get(kind, ()):
            found[kind].setdefault(name, {})[count] = round(value) if count in _WHOLE else value
    return msgspec.convert(found, WorkerDemand, strict=False)


def _fields(flat: Sequence[str]) -> Iterator[tuple[str, str, str, float]]:
    values: Mapping[str, str] = dict(zip(flat[::2], flat[1::2], strict=True))
    for field, value in values.items():
        kind, _, rest = str(field).partition("|")
        name, _, count = rest.rpartition("|")
        yield kind, name, count, float(value)
