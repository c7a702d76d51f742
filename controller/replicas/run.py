"""Replicas: brings as many up as are wanted, in the leading controller's loop.

A record is written, fenced, before anything is started or stopped, so that whoever leads next finishes or
undoes it. Everything that is done can be done again. Before each act the claim to lead must hold for a
margin: a controller that was frozen meanwhile acts no more. While Redis is away nothing changes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import NamedTuple, Protocol

from controller.actuators.port import Actuator, Workload
from controller.replicas.census import Census
from controller.replicas.changes import ChangeCounts
from controller.replicas.config import ReplicasConfig
from controller.replicas.decide import Changes, Facts, decide, unknown
from controller.replicas.errands import Errands
from controller.replicas.fence import Fence
from controller.replicas.sight import Sight
from controller.replicas.workloads import Workloads
from controller.residency.pool import Memory
from controller.residency.residency import Residency, Rooms
from controller.scaling.wanted import Wanted
from model_registry.demand.demand import Demand
from model_registry.errors import RegistryBusyError, RegistryUnavailableError
from model_registry.kinds import Ref
from model_registry.leadership import Leadership, boot_s
from model_registry.pools import Pool
from model_registry.replicas import Replica, ScalingStatus
from model_registry.snapshot import Snapshot, Stored
from model_registry.store import RegistryStore

log = logging.getLogger(__name__)


class _Retired(NamedTuple):
    """An actuator that is used no longer, and what was under way when that was decided."""

    actuator: Actuator | Workload
    tasks: Sequence[asyncio.Task[None]]


class Scaler(Protocol):
    """`controller.scaling.autoscaler.Autoscaler`."""

    def look(self, now_s: float, snapshot: Snapshot, demand: Demand) -> Mapping[str, Wanted]: ...


class Reports(Protocol):
    """`model_registry.demand.store.DemandStore`."""

    async def gather(self) -> Demand: ...


class Replicas:
    """One per controller."""

    def __init__(
        self,
        store: RegistryStore,
        scaler: Scaler,
        reports: Reports,
        actuator_of: Callable[[Pool], Actuator | Workload],
        fence: Fence,
        config: ReplicasConfig | None = None,
    ) -> None:
        """`actuator_of` is asked once for each pool, and again when its `actuator` has changed."""
        self._store = store
        self._scaler = scaler
        self._reports = reports
        self._actuator_of = actuator_of
        self._fence = fence
        self._config = config or ReplicasConfig()
        self._errands = Errands(fence, self._errand_ended)
        self._workloads = Workloads(fence, self._errand_ended)
        self._census = Census(self._config, self._errand_ended)
        self._sight = Sight()
        self._residency = Residency(self._config)
        self._actuators: dict[str, tuple[Pool, Actuator | Workload]] = {}
        self._retired: list[_Retired] = []
        self._written: dict[str, float] = {}
        self._token: int | None = None
        self.changes = ChangeCounts()
        """How often replicas came to a state."""
        self.memories: Mapping[str, Memory] = {}
        """By server, as last measured; none while another controller leads."""
        self.on_news: Callable[[], None] = lambda: None
        """Called when an errand has ended, so that the next look comes at once."""

    async def lead(self, leadership: Leadership | None) -> None:
        """Whether this controller leads, whenever that was asked; another claim begins anew."""
        self._fence.renew(leadership)
        token = None if leadership is None else leadership.token
        if token != self._token:
            self._token = token
            await self._errands.drop()
            await self._workloads.drop()
            await self._census.drop()
            await self._residency.drop()
            self._sight = Sight()
            self.memories = {}

    async def act(self, snapshot: Snapshot, leadership: Leadership | None) -> None:
        """One look at all. Raises RegistryUnavailableError and LeadershipLostError."""
        await self.lead(leadership)
        if leadership is None or not _is_concerned(snapshot):
            return
        demand = await self._reports.gather()
        replicas = list(chain(*snapshot.replicas.values()))
        self._errands.knows(one.name for one in replicas)
        await self._equip(snapshot)
        unlooked = await self._census.first_look(self._addressed(), set(unknown(snapshot).values()))
        rooms = {name: one for name, (_, one) in self._actuators.items() if isinstance(one, Rooms)}
        known = self._residency.look(demand.at_s, snapshot, demand, rooms)
        self.memories = known.memories
        facts = Facts(
            wanted=self._scaler.look(demand.at_s, snapshot, demand),
            demand=demand,
            seen=self._sight.see(snapshot, self._census.lost(replicas)),
            outcomes=self._errands.outcomes,
            nameless=self._census.nameless(replicas),
            figures_age_s={name: boot_s() - at_s for name, at_s in self._written.items()},
            sighting=await self._workloads.see(snapshot, self._unaddressed()),
            known=known,
            unlooked=unlooked,
        )
        changes = await self._record(snapshot, facts, leadership)
        if changes is not None:
            self._errands.recorded(facts.outcomes)
            self._tend(snapshot, changes.replicas)
            self._workloads.tend(snapshot, self._unaddressed(), facts.sighting.roster, changes.replicas)
            self._residency.recycle(snapshot, changes.replicas, rooms, known, demand)
        self._census.look(self._addressed())

    async def close(self) -> None:
        """Let go of everything; replicas stay."""
        await self.lead(None)
        for actuator in (
            *(one for _, one in self._actuators.values()),
            *(one.actuator for one in self._retired),
        ):
            await actuator.close()
        self._actuators.clear()
        self._retired.clear()

    async def _record(self, snapshot: Snapshot, facts: Facts, leadership: Leadership) -> Changes | None:
        """Write what is decided; None where the registry kept changing."""
        decided = decide(snapshot, facts, self._config, facts.demand.at_s)
        if not decided.puts and not decided.gone:
            return decided

        def change(fresh: Snapshot, now_s: float) -> tuple[list[Stored], list[Ref]]:
            nonlocal decided
            decided = decide(fresh, facts, self._config, now_s)
            return decided.puts, decided.gone

        try:
            await self._store.rewrite(change, leadership=leadership)
        except RegistryUnavailableError:
            raise
        except RegistryBusyError as error:
            log.info("replicas changed meanwhile", extra={"error": str(error)})
            return None
        self._tell(snapshot, decided, leadership)
        return decided

    def _tell(self, snapshot: Snapshot, changes: Changes, leadership: Leadership) -> None:
        before = {one.name: one for one in chain(*snapshot.replicas.values())}
        for item in changes.puts:
            match item:
                case ScalingStatus():
                    self._written[item.name] = boot_s()
                    was = snapshot.scaling.get(item.name)
                    if was is None or was.wanted != item.wanted:
                        what = {"deployment": item.name, "wanted": item.wanted, "reason": item.reason}
                        log.info("replicas wanted", extra=what)
                case Replica():
                    had = before.get(item.name)
                    if had is None or had.state != item.state:
                        self.changes.count(item, item.state)
                        what = {"replica": item.name, "was": had and had.state, "state": item.state}
                        log.info(
                            "replica changed",
                            extra={**what, "reason": item.reason, "token": leadership.token},
                        )
        for kind, name in changes.gone:
            if kind == "ScalingStatus":
                self._written.pop(name, None)
            elif kind == "Replica":
                if name in before:
                    self.changes.count(before[name], "gone")
                log.info("replica gone", extra={"replica": name, "token": leadership.token})

    def _tend(self, snapshot: Snapshot, replicas: list[Replica]) -> None:
        deployments = {one.name: one for one in chain(*snapshot.deployments.values())}
        addressed = self._addressed()
        for replica in replicas:
            actuator = addressed.get(replica.pool)
            if actuator is not None:
                self._errands.tend(replica, actuator, deployments.get(replica.deployment))

    async def _equip(self, snapshot: Snapshot) -> None:
        """An actuator for each pool, the same one for as long as that says the same of it.

        One that was replaced, or whose pool was deleted, is closed once nothing is under way that may use it.
        """
        for pool in snapshot.pools.values():
            known = self._actuators.get(pool.name)
            if known is None or known[0].actuator != pool.actuator:
                if known is not None:
                    self._retire(known[1])
                self._actuators[pool.name] = pool, self._actuator_of(pool)
        for name in self._actuators.keys() - snapshot.pools.keys():
            self._retire(self._actuators.pop(name)[1])
        over = [one for one in self._retired if all(task.done() for task in one.tasks)]
        self._retired = [one for one in self._retired if one not in over]
        for one in over:
            await one.actuator.close()

    def _retire(self, actuator: Actuator | Workload) -> None:
        parts = (self._errands, self._census, self._workloads, self._residency)
        self._retired.append(_Retired(actuator, [task for part in parts for task in part.tasks]))

    def _addressed(self) -> dict[str, Actuator]:
        return {
            name: actuator
            for name, (_, actuator) in self._actuators.items()
            if not isinstance(actuator, Workload)
        }

    def _unaddressed(self) -> dict[str, Workload]:
        return {
            name: actuator
            for name, (_, actuator) in self._actuators.items()
            if isinstance(actuator, Workload)
        }

    def _errand_ended(self) -> None:
        self.on_news()


def _is_concerned(snapshot: Snapshot) -> bool:
    return bool(snapshot.pools or snapshot.replicas or snapshot.scaling)
