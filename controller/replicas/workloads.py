"""Workloads: where somebody else (Kubernetes) places replicas, what is seen of them and set.

Nothing here holds up a look: members that are not told in time are not known this time, and numbers are set
by tasks of their own, one for a deployment at most. No number is set before its members were seen.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import NamedTuple

from controller.actuators.port import ActuatorError, Workload
from controller.replicas.fence import Fence, NotLeadingError
from controller.replicas.roster import NOTHING_SEEN, Entry, Number, Roster, Sighting, number_of
from model_registry.entities import Deployment
from model_registry.leadership import boot_s
from model_registry.replicas import Replica
from model_registry.snapshot import Snapshot

_log = logging.getLogger(__name__)

SIGHT_S = 0.2
"""How long a look waits for what is not known yet."""
RESYNC_S = 15.0
"""How often a number is looked at though nothing changed: somebody else may have set it."""
FIRST_RETRY_S, LAST_RETRY_S = 1.0, 30.0
UNKNOWN = "its pods are not known yet"


class _Set(NamedTuple):
    number: Number
    at_s: float
    """When it was set, or is to be tried again."""
    retry_s: float = 0.0
    """0: it was set."""
    error: str = ""


class Workloads:
    """Of one controller while it leads."""

    def __init__(self, fence: Fence, ended: Callable[[], None]) -> None:
        """`ended` is called whenever a number has been set."""
        self._fence = fence
        self._ended = ended
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._set: dict[str, _Set] = {}

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        """What is under way."""
        return list(self._tasks.values())

    async def see(self, snapshot: Snapshot, pools: Mapping[str, Workload]) -> Sighting:
        """Every scaled deployment of `pools`."""
        asked = {
            asyncio.create_task(workload.members(deployment)): (deployment.name, workload)
            for deployment, workload in _theirs(snapshot, pools)
        }
        if not asked:
            return NOTHING_SEEN
        await asyncio.wait(asked, timeout=SIGHT_S)
        roster: dict[str, Entry] = {}
        problems = {name: one.error for name, one in self._set.items() if one.error}
        for task, (name, workload) in asked.items():
            if not task.done():
                task.cancel()
                problems[name] = UNKNOWN
                continue
            try:
                members = task.result()
            except ActuatorError as error:
                problems[name] = str(error)
            except Exception as error:
                _log.exception("looking at a workload failed unexpectedly", extra={"deployment": name})
                problems[name] = f"{type(error).__name__}: {error}"
            else:
                roster[name] = Entry(members, workload.order(members))
        return Sighting(roster, problems)

    def tend(
        self, snapshot: Snapshot, pools: Mapping[str, Workload], roster: Roster, replicas: Iterable[Replica]
    ) -> None:
        """See to it that numbers are as the records say; `replicas`: all that are recorded now."""
        records = list(replicas)
        for deployment, workload in _theirs(snapshot, pools):
            name = deployment.name
            entry = roster.get(name)
            if entry is None or name in self._tasks:
                continue
            pool = deployment.scaling.pool if deployment.scaling else None
            own = [one for one in records if one.deployment == name and one.pool == pool]
            number = number_of(own, entry)
            if self._is_due(name, number):
                task = asyncio.create_task(self._scale(workload, deployment, number), name=f"scale {name}")
                self._tasks[name] = task
                task.add_done_callback(lambda _, name=name: self._over(name))  # type: ignore[misc]

    async def drop(self) -> None:
        """Let go of everything: another controller goes on with it."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.clear()
        self._set.clear()

    def _is_due(self, name: str, number: Number) -> bool:
        last = self._set.get(name)
        if last is None:
            return True
        if last.retry_s:
            return boot_s() >= last.at_s
        return number != last.number or boot_s() - last.at_s >= RESYNC_S

    def _over(self, name: str) -> None:
        self._tasks.pop(name, None)
        self._ended()

    async def _scale(self, workload: Workload, deployment: Deployment, number: Number) -> None:
        name = deployment.name
        try:
            self._fence.token()
            await workload.scale(deployment, number.replicas, number.leaving)
        except NotLeadingError as error:
            _log.warning("number not set", extra={"deployment": name, "error": str(error)})
        except ActuatorError as error:
            self._again(name, number, str(error))
        except Exception as error:
            _log.exception("setting a number failed unexpectedly", extra={"deployment": name})
            self._again(name, number, f"{type(error).__name__}: {error}")
        else:
            self._set[name] = _Set(number, boot_s())

    def _again(self, name: str, number: Number, error: str) -> None:
        last = self._set.get(name)
        wait_s = min(2 * last.retry_s, LAST_RETRY_S) if last and last.retry_s else FIRST_RETRY_S
        self._set[name] = _Set(number, boot_s() + wait_s, wait_s, error)
        _log.warning("number not set", extra={"deployment": name, "error": error, "retry_s": wait_s})


def _theirs(snapshot: Snapshot, pools: Mapping[str, Workload]) -> list[tuple[Deployment, Workload]]:
    return [
        (one, pools[one.scaling.pool])
        for one in chain(*snapshot.deployments.values())
        if one.scaling is not None and one.scaling.pool in pools
    ]
