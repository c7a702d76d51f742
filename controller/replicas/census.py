"""Census: what actuators find, held against the records, from time to time and in the background."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from controller.actuators.port import Actuator, ActuatorError, Found
from controller.replicas.config import ReplicasConfig
from model_registry.leadership import boot_s
from model_registry.replicas import Replica

log = logging.getLogger(__name__)


class _Look(NamedTuple):
    began_s: float
    found: Sequence[Found]
    unheard: Collection[str]
    """Servers that did not tell."""


class Census:
    """Of one controller while it leads."""

    def __init__(self, config: ReplicasConfig) -> None:
        self._config = config
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._began: dict[str, float] = {}
        self._looks: dict[str, _Look] = {}
        self._nameless_since: dict[tuple[str, str], float] = {}
        self._known_since: dict[tuple[str, str], float] = {}
        """When a record first had this handle: looks that began before prove nothing of it."""

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        """What is under way."""
        return list(self._tasks.values())

    def look(self, actuators: Mapping[str, Actuator]) -> None:
        """Begin a look at each pool whose last one is old enough; forget all others."""
        now_s = boot_s()
        for memory in (self._began, self._looks):
            for pool in memory.keys() - actuators.keys():
                del memory[pool]
        for pool, actuator in actuators.items():
            if pool not in self._tasks and now_s - self._began.get(pool, 0.0) >= self._config.look_s:
                self._began[pool] = now_s
                task = asyncio.create_task(self._look(pool, actuator), name=f"census of {pool}")
                self._tasks[pool] = task
                task.add_done_callback(partial(self._ended, pool))

    def lost(self, replicas: Iterable[Replica]) -> set[str]:
        """Names of those that were there and are not; what is on a server that does not tell may still be."""
        now_s, lost, known = boot_s(), set[str](), dict[tuple[str, str], float]()
        for replica in replicas:
            if not replica.handle or replica.state in {"stopping", "failed"}:
                continue
            key = replica.name, replica.handle
            since_s = known[key] = self._known_since.get(key, now_s)
            look = self._looks.get(replica.pool)
            if (
                look is not None
                and since_s < look.began_s
                and replica.place not in look.unheard
                and not any(replica.name == one.replica or replica.handle == one.handle for one in look.found)
            ):
                lost.add(replica.name)
        self._known_since = known
        return lost

    def orphans(self, replicas: Iterable[Replica]) -> list[tuple[str, Found]]:
        """With our mark, and for long enough without a record; with their pool."""
        named, now_s = {one.name for one in replicas}, boot_s()
        nameless = {
            (pool, one.replica): one
            for pool, look in self._looks.items()
            for one in look.found
            if one.replica and one.replica not in named
        }
        self._nameless_since = {key: self._nameless_since.get(key, now_s) for key in nameless}
        return [
            (pool, one)
            for (pool, name), one in nameless.items()
            if self._looks[pool].began_s - self._nameless_since[pool, name] >= self._config.orphan_s
        ]

    async def drop(self) -> None:
        """Forget everything."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for memory in (self._tasks, self._began, self._looks, self._nameless_since, self._known_since):
            memory.clear()

    def _ended(self, pool: str, _task: asyncio.Task[None]) -> None:
        self._tasks.pop(pool, None)

    async def _look(self, pool: str, actuator: Actuator) -> None:
        began_s = boot_s()
        try:
            listing = await actuator.found()
        except ActuatorError as error:
            log.warning("a pool could not be looked at", extra={"pool": pool, "error": str(error)})
        except Exception:
            log.exception("looking at a pool failed unexpectedly", extra={"pool": pool})
        else:
            for server, why in listing.unheard.items():
                what = {"pool": pool, "server": server, "error": why}
                log.warning("a server could not be looked at", extra=what)
            self._looks[pool] = _Look(began_s, listing.found, listing.unheard.keys())
