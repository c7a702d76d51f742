"""One Triton request at the bare model: gathers what its sequences produce and answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from emulator.engine import EngineOutput, PerfMetrics
from emulator.triton.bare_request import BareOptions, prompt_of
from emulator.triton.calls import OpenCall
from emulator.triton.tensors import Tensors, error_response

_INT32_PERF = ("kv_cache_alloc_new_blocks", "kv_cache_reused_blocks", "kv_cache_alloc_total_blocks")
_INT64_PERF = ("arrival_time_ns", "first_scheduled_time_ns", "first_token_time_ns", "last_token_time_ns")


@dataclass(slots=True)
class _Sequence:
    item: int
    index: int
    prompt: tuple[int, ...]
    tokens: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)


class BareCall(OpenCall):
    """Open until every sequence ended; `on_ended` is called once, after the final response.

    `observe` hears what each sequence cost that ended without an error.
    """

    def __init__(
        self,
        sender: Any,
        triton_id: str,
        options: BareOptions,
        tensors: Tensors,
        numbers: list[str],
        cancel: Callable[[str], None],
        observe: Callable[[PerfMetrics], None],
        on_ended: Callable[[BareCall], None],
    ) -> None:
        super().__init__(sender, triton_id)
        self._options = options
        self._cancel = cancel
        self._observe = observe
        self._on_ended = on_ended
        self._sequences: dict[str, _Sequence] = {}
        for position, number in enumerate(numbers):
            item, index = divmod(position, options.return_sequences)
            self._sequences[number] = _Sequence(item, index, prompt_of(tensors, item))

    def cancel(self) -> None:
        """Ends what still runs; the engine then delivers the final outputs."""
        with self._lock:
            numbers = list(self._sequences)
        for number in numbers:
            self._cancel(number)

    def on_output(self, output: EngineOutput) -> None:
        """News from the engine, or from a refused submission."""
        with self._lock:
            sequence = self._sequences[output.request_id]
            if output.final:
                del self._sequences[output.request_id]
            if self._options.streaming:
                sequence.tokens, sequence.log_probs = [], []
            sequence.tokens += output.token_ids
            sequence.log_probs += output.log_probs or []
            if output.final or self._options.streaming:
                self.send(self._response(sequence, output), final=not self._sequences)
            if output.perf is not None and output.error is None:
                self._observe(output.perf)
            if not self._sequences:
                self._on_ended(self)

    def _response(self, sequence: _Sequence, output: EngineOutput) -> Any:
        if output.error is not None:
            return executor_error(output.request_id, output.error)
        tensors = self._tensors(sequence, output)
        if output.fault == "wrong_tensor":
            tensors["output_ids"] = np.full((1, 1, 1, 3), 0.5, np.float32)
        wanted = self._options.outputs
        return pb_utils.InferenceResponse(
            output_tensors=[pb_utils.Tensor(name, value) for name, value in tensors.items() if name in wanted]
        )

    def _tensors(self, sequence: _Sequence, output: EngineOutput) -> dict[str, Any]:
        """Every tensor of a response, with the batch dimension, which is 1."""
        options = self._options
        tokens = [*sequence.prompt, *sequence.tokens] if options.echo else sequence.tokens
        tensors: dict[str, Any] = {
            "output_ids": np.array(tokens, np.int32).reshape(1, 1, -1),
            "sequence_length": np.array([[len(tokens)]], np.int32),
        }
        if options.log_probs:
            tensors["cum_log_probs"] = np.array([[output.cum_log_prob]], np.float32)
            tensors["output_log_probs"] = np.array(sequence.log_probs, np.float32).reshape(1, 1, -1)
        if options.batch_size > 1:
            tensors["batch_index"] = _one(sequence.item, np.int32)
        if options.return_sequences > 1:
            tensors["sequence_index"] = _one(sequence.index, np.int32)
        if options.num_input_tokens:
            tensors["num_input_tokens"] = _one(len(sequence.prompt), np.int32)
        if options.num_output_tokens:
            tensors["num_output_tokens"] = _one(len(tokens), np.int32)
        if options.perf_metrics and output.perf is not None:
            tensors |= _perf_tensors(output.perf)
        return tensors


def executor_error(number: str, reason: Exception) -> Any:
    """What the C++ model answers when the executor refuses or fails a request."""
    return error_response(f"Executor failed process requestId {number} due to the following error: {reason}")


def _perf_tensors(perf: PerfMetrics) -> dict[str, Any]:
    tensors = {name: _one(getattr(perf, name), np.int32) for name in _INT32_PERF}
    tensors |= {name: _one(getattr(perf, name), np.int64) for name in _INT64_PERF}
    tensors["acceptance_rate"] = _one(0.0, np.float32)
    tensors["total_accepted_draft_tokens"] = _one(0, np.int32)
    tensors["total_draft_tokens"] = _one(0, np.int32)
    return tensors


def _one(value: float, dtype: Any) -> Any:
    return np.array([[value]], dtype)
