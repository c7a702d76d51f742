"""The GPU of a server that has none: publishes what its models take under the names of Triton's own metrics.

A model that serves nobody; asked, it tells the same figures. It has to be loaded for as long as the memory is
to be seen, as the metrics of a Python model go with it.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from emulator.triton.calls import ParentWatch, Ticker
from emulator.triton.gpu_ledger import FILE, GpuLedger

UUID = "GPU-00000000-0000-0000-0000-000000000000"
PERIOD_S = 0.05
_MIB = 1 << 20


class GpuModel:
    """What the Python backend loads."""

    def initialize(self, _args: dict[str, str]) -> None:
        ledger = GpuLedger.of(os.environ)
        if ledger is None:
            raise ValueError(f"the emulated GPU needs {FILE} in its server's environment")
        self._ledger = ledger
        self._used = _gauge("nv_gpu_memory_used_bytes", "GPU used memory, in bytes")
        total = self._total = _gauge("nv_gpu_memory_total_bytes", "GPU total memory, in bytes")
        total[1].set(ledger.total_mib * _MIB)
        self._publish()
        self._ticker = Ticker("gpu", PERIOD_S, self._publish)
        self._parent = ParentWatch()
        self._parent.start()
        self._ticker.start()

    def execute(self, requests: list[Any]) -> list[Any]:
        figures = np.array([self._ledger.used_mib(), self._ledger.total_mib], np.int32)
        tensor = pb_utils.Tensor("memory_mib", figures)
        return [pb_utils.InferenceResponse([tensor]) for _ in requests]

    def finalize(self) -> None:
        self._ticker.stop()
        self._parent.stop()

    def _publish(self) -> None:
        self._used[1].set(self._ledger.used_mib() * _MIB)


def _gauge(name: str, text: str) -> tuple[Any, Any]:
    """The family, which lives no longer than it is referred to, and its metric."""
    family = pb_utils.MetricFamily(name=name, description=text, kind=pb_utils.MetricFamily.GAUGE)
    return family, family.Metric(labels={"gpu_uuid": UUID})
