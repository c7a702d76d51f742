"""DemandReports: tells the controller what this gateway process sees of the load.

Once a second, and at once when a request comes to be held for a model without an endpoint. Nothing waits for
it: without Redis the counts go on, and are told when it is back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress

from aiohttp import web

from gateway.admin import require_admin
from gateway.json_answer import json_answer
from model_registry.demand.demand import WorkerDemand, since
from model_registry.demand.store import DemandStore
from model_registry.errors import RegistryError
from model_registry.snapshot import Snapshot

_log = logging.getLogger(__name__)
REPORT_S = 1.0
_PARTED_S = 0.05
"""Between two reports at least, however urgent."""


class DemandReports:
    """One per gateway process; `run` is its supervised task."""

    def __init__(
        self,
        store: DemandStore,
        demanded: Callable[[], WorkerDemand],
        worker: str,
        ended: Sequence[str] = (),
    ) -> None:
        """`worker`: unlike every other worker's name that ever was, without a dot.

        `ended`: workers whose processes are known to be gone. Nobody else can tell that of one that was
        killed, and until somebody does its requests may be under way.
        """
        self._store = store
        self._demanded = demanded
        self._worker = worker
        self._ended = tuple(ended)
        self._renamed = 0
        self._told: WorkerDemand | None = None
        """What the last report that was taken was made of."""
        self._base = WorkerDemand()
        """What was told under earlier names."""
        self._urgent = asyncio.Event()

    def urgent(self) -> None:
        """Report at once."""
        self._urgent.set()

    async def run(self) -> None:
        """Report until cancelled."""
        while True:
            urgent = self._urgent.is_set()
            self._urgent.clear()
            if not await self._report(urgent=urgent) and urgent:
                self._urgent.set()  # said again with the next one
                await asyncio.sleep(REPORT_S)
                continue
            await asyncio.sleep(_PARTED_S)
            with suppress(TimeoutError):
                async with asyncio.timeout(REPORT_S - _PARTED_S):
                    await self._urgent.wait()

    async def close(self) -> None:
        """Say that this process ends."""
        await self._report(ends=True)

    async def _report(self, *, urgent: bool = False, ends: bool = False) -> bool:
        """Whether it was taken."""
        demand = self._demanded()
        try:
            taken = await self._tell(demand, urgent=urgent, ends=ends)
            if not taken:
                # It was silent for so long that what it had told is added to what ended workers had counted.
                self._base, self._told = self._told or self._base, None
                self._renamed += 1
                taken = await self._tell(demand, urgent=urgent, ends=ends)
        except RegistryError as error:
            _log.debug("demand waits for Redis", extra={"reason": str(error)})
            return False
        self._told, self._ended = demand, ()
        return taken

    async def _tell(self, demand: WorkerDemand, *, urgent: bool, ends: bool) -> bool:
        name = f"{self._worker}.{self._renamed}" if self._renamed else self._worker
        told, known = since(demand, self._base), self._told is not None
        return await self._store.report(name, told, urgent, known=known, ends=ends, gone=self._ended)


def demand_routes(store: DemandStore, snapshot: Callable[[], Snapshot]) -> list[web.AbstractRouteDef]:
    """`GET /admin/v1/demand`: what all gateways have told, added up."""

    async def demand(request: web.Request) -> web.Response:
        require_admin(snapshot(), request)
        return json_answer(await store.gather())

    return [web.get("/admin/v1/demand", demand)]
