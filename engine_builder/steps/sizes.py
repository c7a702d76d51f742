"""What the steps of a build take in bytes and seconds: limits to guard with, not forecasts. Pure.

Seconds: ten minutes to start, then all weights read and written at 100 MB/s; compiling takes 5 to 30 minutes
where all goes well, and gets four minutes for each billion parameters, as ranks may be built one by one.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine_builder.shape import Shape
from model_registry.engine_specs import EngineSpec, Precision

_BYTES: dict[Precision, float] = {
    "bf16": 2.0,
    "fp16": 2.0,
    "fp8": 1.0,
    "int8-sq": 1.0,
    "int8-wo": 1.0,
    "int4-awq": 0.5 + 2 / 128,
    "int4-wo": 0.5,
    "nvfp4": 0.5 + 1 / 16,
}
"""Of a weight in a linear layer (contract sheet §8)."""
_SPARE = 1.1
_START_S = 600.0
_SLOW_BYTES_PER_S = 100e6
_BUILD_S_PER_PARAMETER = 240e-9


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes of one model, whole."""

    source: int
    """Weights in 16 bits."""
    built: int
    """Weights as they are served, with an embedding table in each rank of the first stage."""

    @classmethod
    def of(cls, spec: EngineSpec, shape: Shape) -> Sizes:
        """Of a spec with nothing open."""
        linear = shape.linear * _BYTES[precision(spec)]
        wide = 2 * (shape.embedding * (1 + (spec.tensor_parallel or 1)) + shape.norms)
        return cls(2 * shape.parameters, int((linear + wide) * _SPARE))

    @property
    def read_timeout_s(self) -> float:
        """For a step that reads and writes all weights."""
        return _START_S + 2 * self.source / _SLOW_BYTES_PER_S


def build_timeout_s(shape: Shape) -> float:
    """For `trtllm-build`."""
    return _START_S + shape.parameters * _BUILD_S_PER_PARAMETER


def calibration_timeout_s(spec: EngineSpec, sizes: Sizes) -> float:
    """For `quantize.py`: reading, and half a second a sample, twice."""
    return sizes.read_timeout_s + 2 * 0.5 * spec.calibration.samples


def precision(spec: EngineSpec) -> Precision:
    """The precision of a spec with nothing open. Raises ValueError."""
    if spec.precision is None:
        raise ValueError(f"{spec.name} leaves precision open; resolve it first")
    return spec.precision
