"""The programs that have a double, by their names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from engine_builder.doubles import convert_checkpoint, quantize, trtllm_build

PROGRAMS: Mapping[str, Callable[[Sequence[str] | None], None]] = {
    **{module.PROGRAM: module.main for module in (convert_checkpoint, quantize, trtllm_build)},
    **{name: partial(convert_checkpoint.main, program=name) for name in convert_checkpoint.WITH_HEADS},
}
