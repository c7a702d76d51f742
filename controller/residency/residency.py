"""Residency: what the leading controller learns about the models of pools that hold more than fit.

Nothing of it is stored: another leader begins with nothing expected of anybody, and with sizes and times to
load as the registry has them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Protocol, runtime_checkable

from controller.actuators.port import ActuatorError
from controller.replicas.fence import NotLeadingError
from controller.residency.next_use import NextUse
from controller.residency.pool import Known, Memory, is_packed, leaking
from controller.residency.value import Outlook
from model_registry.demand.demand import Demand, GroupDemand
from model_registry.pools import Pool, TritonActuator
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

    def __init__(self) -> None:
        self._uses = NextUse()
        self._counts: dict[str, int] = {}
        self._recycling: dict[str, asyncio.Task[None]] = {}
        self._told: dict[str, float] = {}

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
        return Known(outlooks, memories, snapshot.scaling)

    def recycle(
        self, pools: Mapping[str, Pool], replicas: Sequence[Replica], rooms: Mapping[str, Rooms]
    ) -> None:
        """Begin to restart the servers that leak, once nothing is on them."""
        for name, actuator in rooms.items():
            pool = pools.get(name)
            if pool is None or not isinstance(pool.actuator, TritonActuator):
                continue
            for http, mib in leaking(pool, actuator.memories).items():
                self._tell(http, mib, restarts=bool(pool.actuator.recycle))
                is_empty = not any(one.place == http for one in replicas)
                if pool.actuator.recycle and is_empty and http not in self._recycling:
                    task = asyncio.create_task(self._recycle(actuator, http), name=f"restart {http}")
                    self._recycling[http] = task

    async def drop(self) -> None:
        """Forget everything."""
        tasks = list(self._recycling.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._uses = NextUse()
        for memory in (self._counts, self._recycling, self._told):
            memory.clear()

    def _tell(self, http: str, mib: float, *, restarts: bool) -> None:
        """Once for each growth."""
        if self._told.get(http, 0.0) < mib:
            what = {"server": http, "kept_mib": round(mib), "restarts": restarts}
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
