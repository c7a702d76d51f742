"""Workloads: looks at the members of each, and sets its number, in the background; one of each at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import NamedTuple

from controller.actuators.port import ActuatorError, Workload
from controller.replicas.fence import Fence, NotLeadingError
from controller.replicas.members import Crew, Number
from model_registry.entities import Deployment
from model_registry.leadership import boot_s

log = logging.getLogger(__name__)

AGAIN_S = 10.0
"""How often a number is set anew that somebody may have changed."""


class Of(NamedTuple):
    """One deployment and who runs it."""

    deployment: Deployment
    workload: Workload


class Workloads:
    """Of one controller while it leads."""

    def __init__(self, fence: Fence, ended: Callable[[], None]) -> None:
        """`ended` is called when members have changed."""
        self._fence = fence
        self._ended = ended
        self._looks: dict[str, asyncio.Task[None]] = {}
        self._settings: dict[str, asyncio.Task[None]] = {}
        self._set: dict[str, tuple[Number, float]] = {}
        self._crews: dict[str, Crew] = {}

    @property
    def crews(self) -> Mapping[str, Crew]:
        """By deployment, where its members are known."""
        return dict(self._crews)

    def look(self, all_of_them: Mapping[str, Of]) -> None:
        """Begin a look at each that none is under way of; forget all others."""
        for gone in self._crews.keys() - all_of_them.keys():
            del self._crews[gone]
        for name, one in all_of_them.items():
            if name not in self._looks:
                self._looks[name] = asyncio.create_task(self._look(name, one), name=f"members of {name}")

    def ask_for(self, name: str, one: Of, number: Number) -> None:
        """Set the number, unless that was done lately or is under way."""
        known = self._set.get(name)
        if name in self._settings or (
            known is not None and known[0] == number and boot_s() - known[1] < AGAIN_S
        ):
            return
        self._settings[name] = asyncio.create_task(self._scale(name, one, number), name=f"scale {name}")

    async def drop(self) -> None:
        """Forget everything: another controller leads."""
        tasks = [*self._looks.values(), *self._settings.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for memory in (self._looks, self._settings, self._set, self._crews):
            memory.clear()

    async def _look(self, name: str, one: Of) -> None:
        before = self._crews.get(name)
        try:
            members = tuple(await one.workload.members(one.deployment))
        except ActuatorError as error:
            self._crews.pop(name, None)
            log.warning("a workload could not be looked at", extra={"deployment": name, "error": str(error)})
        except Exception:
            self._crews.pop(name, None)
            log.exception("looking at a workload failed unexpectedly", extra={"deployment": name})
        else:
            self._crews[name] = Crew(members, one.workload.leavers, one.workload.sets_number)
            if before is not None and before.members != members:
                self._ended()
        finally:
            self._looks.pop(name, None)

    async def _scale(self, name: str, one: Of, number: Number) -> None:
        try:
            token = self._fence.token()
            await one.workload.scale(one.deployment, number.replicas, number.leaving)
            self._set[name] = number, boot_s()
            what = {"deployment": name, "replicas": number.replicas, "leaving": number.leaving}
            log.debug("workload set", extra={**what, "token": token})
        except NotLeadingError as error:
            log.warning("workload not set", extra={"deployment": name, "error": str(error)})
        except ActuatorError as error:
            log.warning("workload not set", extra={"deployment": name, "error": str(error)})
        except Exception:
            log.exception("setting a workload failed unexpectedly", extra={"deployment": name})
        finally:
            self._settings.pop(name, None)
