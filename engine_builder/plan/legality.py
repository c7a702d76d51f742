"""Legality: everything that is wrong with a spec, before a GPU has been touched. Pure.

for finding in check(spec, checkpoint.shape):
    print(finding)
"""

from __future__ import annotations

from engine_builder.identity import DECIDED
from engine_builder.plan import lane_rules, precision_rules, size_rules
from engine_builder.plan.findings import ORDER, Finding
from engine_builder.shape import Shape
from engine_builder.steps.building import EXPORTED, LOADED_AS_IT_IS
from model_registry.engine_specs import EngineSpec, Precision
from router.gpus import CPU, GPUS

VLLM_FROM_16_BITS = (*LOADED_AS_IT_IS["vllm"], *EXPORTED["vllm"])
"""Made while it loads, or exported by a build; other formats it must find in the checkpoint."""


def check(
    spec: EngineSpec, shape: Shape, *, quantized: Precision | None = None, draft: Shape | None = None
) -> list[Finding]:
    """All findings, the worst first. `quantized`: what the checkpoint's weights are already."""
    gpu = GPUS.get(spec.gpu_class)
    found = [*lane_rules.check(spec, shape), *precision_rules.check(spec, gpu)]
    found += size_rules.check(spec, shape, gpu, draft)
    if gpu is None and spec.gpu_class != CPU:
        found.append(
            Finding(
                "gpu-class",
                "gpu_class",
                f"no figures of {spec.gpu_class!r}: neither memory nor precision can be checked",
                f"use one of {', '.join(GPUS)}, {CPU} for engines on the emulator, or leave nothing open",
                "error" if any(getattr(spec, name) is None for name in DECIDED) else "warning",
            )
        )
    if quantized is not None and spec.precision is not None and spec.precision != quantized:
        found.append(
            Finding(
                "checkpoint-quantized",
                "precision",
                f"the checkpoint's weights are {quantized} already and cannot be made {spec.precision}",
                f"use {quantized}, or the checkpoint in 16 bits",
            )
        )
    if spec.lane == "vllm" and spec.precision not in (None, *VLLM_FROM_16_BITS, quantized):
        found.append(
            Finding(
                "vllm-quantized",
                "precision",
                f"no build makes {spec.precision} weights for vLLM, and the checkpoint has none",
                f"use {', '.join(VLLM_FROM_16_BITS)}, or a checkpoint in {spec.precision}",
            )
        )
    return sorted(found, key=lambda one: ORDER.index(one.severity))
