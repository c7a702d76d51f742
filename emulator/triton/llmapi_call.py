"""One Triton request at the `llmapi` model: the text so far, and how it is sent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from emulator.engine import Engine, EngineOutput, PerfMetrics
from emulator.engine.tokenizer import EngineTokenizer
from emulator.triton.calls import OpenCall
from emulator.triton.tensors import error_response, string_tensor

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_TIMES = ("arrival_time_ns", "first_scheduled_time_ns", "first_token_time_ns", "last_token_time_ns")


@dataclass(frozen=True, slots=True)
class LlmApiOptions:
    """What was asked, and how the answer is to look."""

    prompt: str
    streaming: bool
    decoupled: bool
    ends_stopped: bool
    """A stream that was told to stop gets its final response."""
    echo: bool
    finish_reason: bool
    stop_reason: bool
    cumulative_logprob: bool
    perf_metrics: bool
    stops: tuple[str, ...]


class LlmApiCall(OpenCall):
    """Open until the engine's final output; `on_ended` is called once, after the final response."""

    def __init__(
        self,
        sender: Any,
        triton_id: str,
        engine_id: str,
        options: LlmApiOptions,
        tokenizer: EngineTokenizer,
        engine: Engine,
        on_ended: Callable[[LlmApiCall], None],
    ) -> None:
        super().__init__(sender, triton_id)
        self._engine_id = engine_id
        self._options = options
        self._tokenizer = tokenizer
        self._engine = engine
        self._on_ended = on_ended
        self._tokens: list[int] = []
        self._left_open = False

    def stop(self) -> None:
        self._left_open = not self._options.ends_stopped
        self.cancel()

    def cancel(self) -> None:
        """As when the client left: nothing is owed to it."""
        self._engine.cancel(self._engine_id)
        if self._left_open and self.client_left():
            self.send(None, final=True)
            self._on_ended(self)

    def on_output(self, output: EngineOutput) -> None:
        """News from the engine, or from a refused submission."""
        self._tokens += output.token_ids
        try:
            if output.final or self._options.streaming:
                self._send(output)
        finally:
            if output.final and not self._left_open:
                self._on_ended(self)

    def _send(self, output: EngineOutput) -> None:
        if output.error is not None:
            self.send(error_response(f"Error generating request: {output.error}"), final=True)
        elif output.finish_reason == "cancelled":
            if not self._left_open:
                self.send(None, final=True)
        elif not self._options.decoupled:
            self.send(self._response(output), final=True)
        else:
            self.send(self._response(output), final=False)
            if output.final:
                self.send(None, final=True)

    def _response(self, output: EngineOutput) -> Any:
        options = self._options
        if output.fault == "wrong_tensor":
            return pb_utils.InferenceResponse(
                [pb_utils.Tensor("text_output", np.full((1, 3), 0.5, np.float32))]
            )
        text, stop = self._text(output)
        tensors = [string_tensor("text_output", [options.prompt + text if options.echo else text])]
        if options.finish_reason:
            tensors.append(string_tensor("finish_reason", [str(output.finish_reason)]))
        if options.stop_reason:
            tensors.append(string_tensor("stop_reason", [str(stop)]))
        if options.cumulative_logprob:
            tensors.append(string_tensor("cumulative_logprob", [str(output.cum_log_prob)]))
        if options.perf_metrics and output.perf is not None:
            tensors += _perf_tensors(output.perf)
        return pb_utils.InferenceResponse(output_tensors=tensors)

    def _text(self, output: EngineOutput) -> tuple[str, str | None]:
        """The text so far without stop string or half a character, and the stop string that ended it."""
        text = self._tokenizer.decode(self._tokens)
        if output.finish_reason == "stop":
            for stop in self._options.stops:
                if text.endswith(stop):
                    return text[: -len(stop)], stop
        return text if output.final else text.rstrip(_REPLACEMENT), None


def _perf_tensors(perf: PerfMetrics) -> list[Any]:
    reused, allocated = perf.kv_cache_reused_blocks, perf.kv_cache_alloc_new_blocks
    values: dict[str, float] = {
        "kv_cache_reused_block": reused,
        "kv_cache_missed_block": allocated,
        "kv_cache_alloc_new_blocks": allocated,
        "kv_cache_alloc_total_blocks": perf.kv_cache_alloc_total_blocks,
        "kv_cache_hit_rate": reused / max(1, reused + allocated),
        **{name: getattr(perf, name) for name in _TIMES},
        "acceptance_rate": 0.0,
        "total_accepted_draft_tokens": 0,
        "total_draft_tokens": 0,
    }
    return [string_tensor(name, [str(value)]) for name, value in values.items()]
