"""One tensor of a Triton model: name, type and shape, as `config.pbtxt` states them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

DYNAMIC = -1


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output. `dims` leave out the batch dimension.

    `dtype` is Triton's name without `TYPE_` (`INT32`, `FP32`, `STRING`, `BOOL`). `reshape` is what the
    backend sees instead of `dims`: `()` is a scalar per item of the batch, None means no reshape.
    `ragged` lets the items of one batch differ in shape. `optional` applies to inputs only.
    """

    name: str
    dtype: str
    dims: tuple[int, ...] = (1,)
    optional: bool = False
    reshape: tuple[int, ...] | None = None
    ragged: bool = False


class Schema(NamedTuple):
    """All tensors of one model."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def scalar(name: str, dtype: str, *, optional: bool = True) -> TensorSpec:
    """One value per request, which the backend sees without a dimension of its own."""
    return TensorSpec(name, dtype, (1,), optional=optional, reshape=())


def one(name: str, dtype: str, *, optional: bool = True) -> TensorSpec:
    """One value per request, which the backend sees as a vector of one."""
    return TensorSpec(name, dtype, (1,), optional=optional)


def ragged(name: str, dtype: str, *dims: int) -> TensorSpec:
    """An optional input whose size may differ between the items of a batch."""
    return TensorSpec(name, dtype, dims or (DYNAMIC,), optional=True, ragged=True)


def output(name: str, dtype: str, *dims: int) -> TensorSpec:
    """An output; one value when no dimensions are given."""
    return TensorSpec(name, dtype, dims or (1,))
