"""StackSupervisor: keeps the processes of a local stack running, and ends them in reverse order."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from enginehouse.errors import ProcessError
from enginehouse.local.process_record import ProcessRecord
from enginehouse.local.service import Service

_log = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
STEADY_S = 10.0
STOP_GRACE_S = 8.0
HASTE_GRACE_S = 0.5


def pause_before_restart(failures: int) -> float:
    """Seconds to wait before start number `failures` + 1 in a row: doubled each time, up to 5 s."""
    return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(failures, 10))


@dataclass
class _Kept:
    service: Service
    stage: int
    task: asyncio.Task[None] | None = None
    restarts: int = 0


class StackSupervisor:
    """Starts services in order; restarts one that ends by itself, with a growing pause.

    `on_restart` is told (name, exit status) each time.
    """

    def __init__(
        self, record: ProcessRecord, on_restart: Callable[[str, int], None] = lambda _name, _status: None
    ) -> None:
        self._record = record
        self._on_restart = on_restart
        self._kept: list[_Kept] = []
        self._hurry = asyncio.Event()

    async def start(self, service: Service, stage: int = 0) -> None:
        """Start `service` and return when it serves; from then on it is kept running.

        Services of a later stage end before those of an earlier one.
        """
        kept = _Kept(service, stage)
        self._kept.append(kept)
        await self._launch(service)
        await service.ready()
        kept.task = asyncio.create_task(self._keep(kept), name=f"keep {service.name}")

    async def stop(self) -> None:
        """End every service, the latest stage first; `hurry` shortens the grace of those that remain."""
        for stage in sorted({kept.stage for kept in self._kept}, reverse=True):
            await asyncio.gather(*(self._give_up(kept) for kept in self._kept if kept.stage == stage))
        self._kept.clear()

    async def _give_up(self, kept: _Kept) -> None:
        if kept.task is not None:
            kept.task.cancel()
            await asyncio.gather(kept.task, return_exceptions=True)
        await self._end(kept.service)

    def hurry(self) -> None:
        """The operator is impatient: insist at once."""
        self._hurry.set()

    def restarts(self) -> dict[str, int]:
        """Service name -> how often it was started again."""
        return {kept.service.name: kept.restarts for kept in self._kept}

    async def _launch(self, service: Service) -> None:
        await service.start()
        if service.pid is not None:
            self._record.add(service.name, service.pid)

    async def _end(self, service: Service) -> None:
        pid = service.pid
        grace_s = HASTE_GRACE_S if self._hurry.is_set() else STOP_GRACE_S
        stopping = asyncio.create_task(service.stop(grace_s))
        hurried = asyncio.create_task(self._hurry.wait())
        await asyncio.wait({stopping, hurried}, return_when=asyncio.FIRST_COMPLETED)
        if not stopping.done():
            stopping.cancel()
            await asyncio.gather(stopping, return_exceptions=True)
            stopping = asyncio.create_task(service.stop(HASTE_GRACE_S))
        hurried.cancel()
        await stopping
        if pid is not None:
            self._record.remove(pid)

    async def _keep(self, kept: _Kept) -> None:
        failures = 0
        while True:
            started_s = time.monotonic()
            pid = kept.service.pid
            status = await kept.service.wait()
            if pid is not None:
                self._record.remove(pid)
            failures = 0 if time.monotonic() - started_s > STEADY_S else failures + 1
            kept.restarts += 1
            self._on_restart(kept.service.name, status)
            await asyncio.sleep(pause_before_restart(failures))
            await self._relaunch(kept.service)

    async def _relaunch(self, service: Service) -> None:
        """One that cannot start now is tried again: `wait` then finds it ended."""
        try:
            await self._launch(service)
            await service.ready()
        except (ProcessError, OSError) as error:
            _log.warning(
                "a restarted process does not serve yet", extra={"service": service.name, "why": str(error)}
            )
