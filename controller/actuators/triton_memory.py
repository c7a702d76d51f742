"""Memory: what models take of their servers, by what the servers' metrics say before and after.

A load or an unload is measured while nothing else is loaded on its GPU. Metrics lag, by two seconds where
Triton is started without `--metrics-interval-ms`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from controller.residency.pool import GpuUse, Memory
from inference.control import TritonControl
from inference.errors import InferenceError

LAG_S = 4.0
"""How long metrics may lag behind what happens."""
POLL_S = 0.1
NEARLY = 0.95
"""Share of what was expected at which the metrics are taken to have caught up."""


class ServerMemory:
    """Of one server; what is kept in it counts from this object's beginning, or its server's."""

    def __init__(self, control: TritonControl, *, alone: bool) -> None:
        """`alone`: nothing else of ours is on its GPU, so that what is used there is its own."""
        self._control, self._alone = control, alone
        self._used_mib: float | None = None
        self._total_mib = self._looked_s = 0.0
        self._kept_mib = 0.0
        self._sizes: dict[str, float] = {}

    @property
    def memory(self) -> Memory:
        """As last measured."""
        if self._used_mib is None:
            return Memory(None, self._kept_mib)
        age_s = asyncio.get_running_loop().time() - self._looked_s
        gpus = GpuUse(self._used_mib, self._total_mib, age_s)
        return Memory(self._used_mib if self._alone else None, self._kept_mib, gpus)

    async def look(self) -> float | None:
        """What is used of its GPUs now; None where the server does not tell."""
        try:
            gpus = await self._control.gpu_memory()
        except InferenceError:
            gpus = []
        self._used_mib = sum(one.used_mib for one in gpus) if gpus else None
        self._total_mib = sum(one.total_mib for one in gpus)
        self._looked_s = asyncio.get_running_loop().time()
        return self._used_mib

    async def loaded(self, model: str, before_mib: float | None, declared_mib: float | None) -> int | None:
        """What a model takes that has just been loaded; None where that cannot be told."""
        expected = self._sizes.get(model, declared_mib)
        if before_mib is None or expected is None:
            return None
        used = await self._until(lambda now_mib: now_mib - before_mib >= NEARLY * expected)
        if used is None or used <= before_mib:
            return None
        self._sizes[model] = used - before_mib
        return round(used - before_mib)

    async def unloaded(self, model: str, before_mib: float | None, size_mib: float | None) -> None:
        """Takes down what a model has left behind that has just been unloaded."""
        size = self._sizes.get(model, size_mib)
        if before_mib is None or size is None:
            return
        used = await self._until(lambda now_mib: before_mib - now_mib >= NEARLY * size)
        if used is not None:
            self._kept_mib = max(0.0, self._kept_mib + size - (before_mib - used))

    def restarted(self) -> None:
        """Nothing is left of what was in it."""
        self._used_mib, self._kept_mib = None, 0.0

    async def _until(self, caught_up: Callable[[float], bool]) -> float | None:
        """What is used once that is so, or when the metrics can lag no longer."""
        loop = asyncio.get_running_loop()
        late_s = loop.time() + LAG_S
        while (used := await self.look()) is not None:
            if caught_up(used) or loop.time() > late_s:
                return used
            await asyncio.sleep(POLL_S)
        return None
