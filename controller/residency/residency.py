"""Residency: what the leading controller learns about the models of pools that hold more than fit.

Nothing of it is stored: another leader begins with nothing expected of anybody, and with sizes and times to
load as the registry has them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Protocol, runtime_checkable

from controller.actuators.port import ActuatorError
from controller.replicas.config import ReplicasConfig
from controller.replicas.fence import NotLeadingError
from controller.residency.neighbours import are_idle, is_awaited, needed_for, neighbours
from controller.residency.next_use import NextUse
from controller.residency.pool import Known, Memory, is_packed, leaking
from controller.residency.value import Outlook
from model_registry.demand.demand import Demand, GroupDemand
from model_registry.entities import Endpoint
from model_registry.pools import TritonActuator
from model_registry.replicas import Replica
from model_registry.snapshot import Snapshot

log = logging.getLogger(__name__)

RETRY_S = 10.0
"""Until a restart that failed is tried again."""


@runtime_checkable
class Rooms(Protocol):
    """An actuator whose servers hold many replicas in one memory."""

    @property
    def memories(self) -> Mapping[str, Memory]:
        """By server, as last measured."""

    async def recycle(self, http: str) -> None:
        """Restart a server that nothing is on, and return when it is back. Raises ActuatorError."""


class Residency:
    """Of one controller while it leads."""

    def __init__(self, config: ReplicasConfig) -> None:
        self._config = config
        self._uses = NextUse()
        self._counts: dict[str, int] = {}
        self._recycling: dict[str, asyncio.Task[None]] = {}
        self._told: dict[str, float] = {}
        self._out_at_s: dict[str, float] = {}
        """Since when nothing on a server is ready any more, on the clock of the demand."""

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        """What is under way."""
        return list(self._recycling.values())

    def look(self, now_s: float, snapshot: Snapshot, demand: Demand, rooms: Mapping[str, Rooms]) -> Known:
        """What is known now. `rooms`: actuators by pool; `now_s`: on the clock of the demand."""
        outlooks: dict[str, Outlook] = {}
        for deployment in chain(*snapshot.deployments.values()):
            pool = None if deployment.scaling is None else snapshot.pools.get(deployment.scaling.pool)
            if pool is None or not is_packed(pool) or not deployment.weight:
                continue
            group = f"{deployment.model}:{deployment.profile}"
            if demand.age_s is not None:
                count = demand.groups.get(group, GroupDemand()).arrivals
                arrived = count - self._counts.get(deployment.name, count)
                self._counts[deployment.name] = count
                if arrived > 0:
                    self._uses.seen(now_s, deployment.name, arrived)
            outlooks[deployment.name] = self._uses.outlook(now_s, deployment.name)
        self._uses.keep(outlooks)
        self._counts = {name: count for name, count in self._counts.items() if name in outlooks}
        memories = {http: memory for one in rooms.values() for http, memory in one.memories.items()}
        return Known(outlooks, memories, snapshot.scaling, dict(self._restarts(snapshot, memories)))

    def recycle(
        self,
        snapshot: Snapshot,
        replicas: Sequence[Replica],
        rooms: Mapping[str, Rooms],
        known: Known,
        demand: Demand,
    ) -> None:
        """Begin to restart the servers that leak, once nothing is on them or at what others have there."""
        self._out_at_s = {http: at_s for http, at_s in self._out_at_s.items() if http in known.restarts}
        used = {one.place for one in replicas}
        for http, pool in known.restarts.items():
            is_free = http not in used and self._is_left(neighbours(http, pool, snapshot), http, demand)
            if is_free and http not in self._recycling:
                task = asyncio.create_task(self._recycle(rooms[pool], http), name=f"restart {http}")
                self._recycling[http] = task

    async def drop(self) -> None:
        """Forget everything."""
        tasks = list(self._recycling.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._uses = NextUse()
        for memory in (self._counts, self._recycling, self._told, self._out_at_s):
            memory.clear()

    def _restarts(self, snapshot: Snapshot, memories: Mapping[str, Memory]) -> Iterator[tuple[str, str]]:
        """Servers to be restarted, with their pool. Where numbers decide, only what nobody else uses."""
        for pool in snapshot.pools.values():
            if not isinstance(pool.actuator, TritonActuator):
                continue
            for http, mib in leaking(pool, memories).items():
                if is_awaited(http, snapshot):
                    continue
                others = neighbours(http, pool.name, snapshot)
                why_not = None if pool.actuator.recycle else "the pool has no recycle"
                if others and not is_packed(pool):
                    why_not = f"{others[0].name} is on it, too"
                elif (model := needed_for(http, others, snapshot)) is not None:
                    why_not = f"{model} is served nowhere else"
                self._tell(http, mib, why_not)
                if why_not is None:
                    yield http, pool.name

    def _is_left(self, others: Sequence[Endpoint], http: str, demand: Demand) -> bool:
        """Whether what others have on a server is out, and nothing in flight there or waited for longer."""
        if any(one.state == "ready" for one in others):
            self._out_at_s.pop(http, None)
            return False
        out_at_s = self._out_at_s.setdefault(http, demand.at_s)
        late = demand.at_s - out_at_s >= self._config.drain_s
        return late or not others or are_idle(others, demand, out_at_s, self._config.settle_s)

    def _tell(self, http: str, mib: float, why_not: str | None) -> None:
        """Once for each growth."""
        if self._told.get(http, 0.0) < mib:
            what = {"server": http, "kept_mib": round(mib), "restarts": why_not is None, "reason": why_not}
            log.warning("a server keeps memory of models that have left it", extra=what)
            self._told[http] = mib

    async def _recycle(self, actuator: Rooms, http: str) -> None:
        try:
            log.info("server restarts", extra={"server": http})
            await actuator.recycle(http)
            self._told.pop(http, None)
            log.info("server restarted", extra={"server": http})
        except NotLeadingError as error:
            log.warning("server not restarted", extra={"server": http, "error": str(error)})
        except ActuatorError as error:
            log.warning("server not restarted", extra={"server": http, "error": str(error)})
            await asyncio.sleep(RETRY_S)
        finally:
            self._recycling.pop(http, None)
