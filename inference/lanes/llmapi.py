"""Lane of the `llmapi` model: text in, the whole text so far in each response.

It reports neither tokens nor their count. Numbers may come as strings. A stop string that ended the answer is
not in its text but in `stop_reason`; the reader puts it back, because whether it is shown, and that it is
counted, is not the server's to decide.
"""

from __future__ import annotations

from typing import Any

from inference.errors import AdapterUnsendableError, StreamBrokenError
from inference.lanes.adapter import no_adapter
from inference.lanes.options import OptionTensors
from inference.lanes.outputs import cached_tokens, engine_times, is_finished, text, told_error
from inference.lanes.sampling import SamplingTensors, unsupported
from inference.lanes.text import Deltas, prompt_text
from inference.request import InferenceRequest, Lora, Usage
from inference.schema import Schema
from inference.sink import FinishReason, Sink

_SAMPLING = {
    "temperature": ("sampling_param_temperature",),
    "top_p": ("sampling_param_top_p",),
    "top_k": ("sampling_param_top_k",),
    "seed": ("sampling_param_seed",),
    "presence_penalty": ("sampling_param_presence_penalty",),
    "frequency_penalty": ("sampling_param_frequency_penalty",),
}
_FLAGS = (
    "return_finish_reason",
    "sampling_param_exclude_input_from_output",
    "sampling_param_return_perf_metrics",
)
_LORA = ("lora_id", "lora_name", "lora_path")
_REASONS: dict[str, FinishReason] = {"stop": "stop", "length": "length"}


class LlmApiLane:
    """Schema of the `llmapi` model."""

    name = "llmapi"

    def __init__(self, schema: Schema) -> None:
        declared = schema.inputs
        self.schema = schema
        self.takes_stop = "stop" in schema.inputs
        self._sampling = SamplingTensors(schema, _SAMPLING)
        self._options = OptionTensors(schema)
        self._always = {flag: True for flag in _FLAGS if flag in declared}
        self._has_streaming = "streaming" in declared
        self._has_stop = "sampling_param_stop" in declared
        self._has_lora = all(name in declared for name in _LORA)
        self._names_stop = "return_stop_reason" in declared and "stop_reason" in schema.outputs
        self.tells_reason = "return_finish_reason" in declared and "finish_reason" in schema.outputs
        self.proves_end = (
            "sampling_param_return_perf_metrics" in declared and "last_token_time_ns" in schema.outputs
        )

    def check(self, request: InferenceRequest) -> None:
        """Raise UnsupportedFeatureError for what this model carries no tensor for."""
        if request.stream and not (self.schema.decoupled and self._has_streaming):
            raise unsupported(self.name, "stream", request)
        if request.stop and not self._has_stop:
            raise unsupported(self.name, "stop", request)
        if request.sampling.log_probs:
            raise unsupported(self.name, "logprobs", request)
        if request.guide is not None or request.options is not None:
            self._options.check(request)
        if request.prompt_text is None:
            raise unsupported(self.name, "prompt", request, "it takes text, not token ids")
        if request.lora is not None:
            self._check_lora(request.lora)
        self._sampling.check(request)

    def _check_lora(self, lora: Lora) -> None:
        if not self._has_lora:
            raise no_adapter(self.name)
        if lora.server_path is None:
            raise AdapterUnsendableError(
                "The model's server reads LoRA adapters itself, and it is not known where this one is: its "
                "operator must set the adapter's `server_path`."
            )

    def tensors(self, request: InferenceRequest) -> dict[str, Any]:
        """Inputs by name; `prompt_text` must be set. `text_input` is one-dimensional."""
        tensors: dict[str, Any] = {
            "text_input": [prompt_text(request, self.name)],
            "sampling_param_max_tokens": request.max_tokens,
            **self._always,
            **self._sampling.tensors(request.sampling),
        }
        if self._has_streaming:
            tensors["streaming"] = request.stream
        if request.stop:
            tensors["sampling_param_stop"] = list(request.stop)
            if self._names_stop:
                tensors["return_stop_reason"] = True
        if request.lora is not None:
            values = (request.lora.task_id, request.lora.name, request.lora.server_path)
            tensors |= zip(_LORA, values, strict=True)
        return tensors

    def reader(self, request: InferenceRequest, sink: Sink) -> LlmApiReader:
        return LlmApiReader(self, request.stop, sink)


class LlmApiReader:
    """Reads one answer of the `llmapi` model."""

    __slots__ = ("_deltas", "_lane", "_last", "_over", "_sink", "_stops")

    def __init__(self, lane: LlmApiLane, stops: tuple[str, ...], sink: Sink) -> None:
        self._lane = lane
        self._stops = stops
        self._sink = sink
        self._deltas = Deltas()
        self._last: dict[str, Any] | None = None
        self._over = False

    def event(self, outputs: dict[str, Any]) -> None:
        """One response. Raises ProtocolError when it is not of the schema."""
        if self._over:
            return
        so_far = text(outputs, "text_output")
        if so_far is None:
            self._failed(outputs)
            return
        self._last = outputs
        if self._stops:
            so_far += self._stop_met(outputs)
        if new := self._deltas.push(so_far):
            self._sink.text(new)

    def finish(self) -> None:
        """The server ended the stream: whole with a finish reason or the metrics of a finished request."""
        if self._over:
            return
        self._over = True
        if self._last is None:
            self._sink.lost(StreamBrokenError("the server ended the stream before a first response"))
            return
        reason = _REASONS.get((text(self._last, "finish_reason") or "").lower())
        if not self._is_whole(reason):
            self._sink.lost(StreamBrokenError("the server ended the stream before the engine had finished"))
            return
        if held := self._deltas.flush():
            self._sink.text(held)
        stop = text(self._last, "stop_reason") if self._stops else None
        self._sink.end(reason, self._usage(self._last), stop if stop in self._stops else None)

    def _stop_met(self, outputs: dict[str, Any]) -> str:
        """The stop string that the server has cut off; without one it says "None"."""
        met = text(outputs, "stop_reason")
        return met if met in self._stops and met != "None" else ""

    def _is_whole(self, reason: FinishReason | None) -> bool:
        if self._lane.tells_reason:
            return reason is not None
        return not self._lane.proves_end or is_finished(self._last or {})

    def _failed(self, outputs: dict[str, Any]) -> None:
        error = told_error(outputs, "text_output")
        self._over = True
        self._sink.lost(error)

    def _usage(self, last: dict[str, Any]) -> Usage:
        blocks = self._lane.schema.tokens_per_block
        cached = cached_tokens(last, "kv_cache_reused_block", blocks, None)
        return Usage(cached_tokens=cached, engine=engine_times(last))
