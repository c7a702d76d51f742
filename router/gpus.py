"""GPU classes: what their data sheets say. The one table of them.

Rates are dense, without sparsity. Sources: NVIDIA's data sheets; rates, bandwidths and links also as in the
system files of aiconfigurator 0.12.0. `usable_gib` is what CUDA reports as total (the logs of TensorRT-LLM's
memory guide; out-of-memory messages of PyTorch in public issues): less than what is printed on the box.
That of gb300 was not seen: it is nvidia-smi's total less what b300 lacks of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class Gpu(NamedTuple):
    """One GPU. Tera-operations per second, gigabytes of 10^9."""

    sm: int
    """Compute capability: 80 Ampere, 89 Ada, 90 Hopper, 100 and more Blackwell."""
    memory_gb: float
    usable_gib: float
    bandwidth_gb_per_s: float
    link_gb_per_s: float
    """To other GPUs of its node, one direction: NVLink, or PCIe where it has none."""
    per_node: int
    bf16_tflops: float
    int8_tops: float
    fp8_tflops: float | None = None
    """None: it has no FP8 units; 8-bit weights are computed with in 16 bits."""
    fp4_tflops: float | None = None

    @property
    def usable_bytes(self) -> int:
        """Memory that a process can have."""
        return int(self.usable_gib * 2**30)


GPUS: Mapping[str, Gpu] = MappingProxyType(
    {
        "a10": Gpu(86, 24, 22.1, 600, 32, 8, 125, 250),
        "a30": Gpu(80, 24, 23.5, 933, 32, 8, 165, 330),
        "a40": Gpu(86, 48, 44.3, 696, 32, 8, 150, 299),
        "a100-pcie-80gb": Gpu(80, 80, 79.1, 1935, 32, 8, 312, 624),
        "a100-sxm-40gb": Gpu(80, 40, 39.4, 1555, 300, 8, 312, 624),
        "a100-sxm-80gb": Gpu(80, 80, 79.1, 2039, 300, 8, 312, 624),
        "l4": Gpu(89, 24, 22.0, 300, 32, 8, 121, 242, 242),
        "l40s": Gpu(89, 48, 44.4, 864, 32, 8, 362, 733, 733),
        "h100-pcie": Gpu(90, 80, 79.1, 2000, 64, 8, 756, 1513, 1513),
        "h100-sxm": Gpu(90, 80, 79.1, 3350, 450, 8, 989, 1979, 1979),
        "h200-sxm": Gpu(90, 141, 139.8, 4800, 450, 8, 989, 1979, 1979),
        "gh200": Gpu(90, 96, 94.5, 4000, 450, 1, 989, 1979, 1979),
        "b200-sxm": Gpu(100, 180, 178.3, 7700, 900, 8, 2250, 4500, 4500, 9000),
        "gb200": Gpu(100, 186, 184.3, 8000, 900, 4, 2500, 5000, 5000, 10000),
        "b300-sxm": Gpu(103, 270, 267.7, 7750, 900, 8, 2250, 154, 4500, 14000),
        "gb300": Gpu(103, 279, 276.6, 8000, 900, 4, 2500, 165, 5000, 15000),
        "rtx-pro-6000": Gpu(120, 96, 94.9, 1792, 64, 8, 468, 936, 936, 1871),
    }
)
CPU = "cpu"
"""The class of engines on the emulator; it has no figures."""


def architecture_of(gpu_class: str) -> str | None:
    """`sm90` of `h100-sxm`; None for what has none or is not known."""
    gpu = GPUS.get(gpu_class)
    return None if gpu is None else f"sm{gpu.sm}"
