"""Lane of text models around the bare engine: `ensemble` and `tensorrt_llm_bls`.

Streamed text is a delta, or with BLS's `accumulate_tokens` all of the text so far. The server decodes the
tokens of each delta on their own: a character whose bytes were spread over two responses arrives as U+FFFD
and is passed on so, because what it was is lost.
"""

from __future__ import annotations

from typing import Any

from inference.errors import StreamBrokenError
from inference.lanes.adapter import LoraTensors
from inference.lanes.options import OptionTensors
from inference.lanes.outputs import cached_tokens, engine_times, is_finished, number, text, told_error
from inference.lanes.sampling import SamplingTensors, unsupported
from inference.request import InferenceRequest, Usage
from inference.schema import Schema
from inference.sink import FinishReason, Sink

_SAMPLING = {
    "temperature": ("temperature",),
    "top_p": ("top_p",),
    "top_k": ("top_k",),
    "min_tokens": ("min_tokens", "min_length"),
    "seed": ("seed", "random_seed"),
    "presence_penalty": ("presence_penalty",),
    "frequency_penalty": ("frequency_penalty",),
    "repetition_penalty": ("repetition_penalty",),
}
_FLAGS = (
    "exclude_input_in_output",
    "return_perf_metrics",
    "return_num_input_tokens",
    "return_num_output_tokens",
)
_REPLACEMENT = "\ufffd"


class TextLane:
    """Schema of an ensemble or BLS."""

    def __init__(self, schema: Schema) -> None:
        declared = schema.inputs
        self.name: str = schema.lane
        self.schema = schema
        self.takes_stop = False
        self._sampling = SamplingTensors(schema, _SAMPLING)
        self._options = OptionTensors(schema)
        self._lora = LoraTensors(schema)
        self._always = {flag: True for flag in _FLAGS if flag in declared}
        self._has_stream = "stream" in declared
        self._ids = tuple(name for name in ("end_id", "pad_id") if name in declared)
        self._has_stop_words = "stop_words" in declared
        self.proves_end = "return_perf_metrics" in declared and "last_token_time_ns" in schema.outputs

    def check(self, request: InferenceRequest) -> None:
        """Raise UnsupportedFeatureError for what these models carry no tensor for."""
        if request.stream and not (self.schema.decoupled and self._has_stream):
            raise unsupported(self.name, "stream", request)
        if request.stop and not self._has_stop_words:
            raise unsupported(self.name, "stop", request)
        if request.sampling.log_probs:
            why = "it tells the values, but not the tokens they belong to"
            raise unsupported(self.name, "logprobs", request, why)
        if request.guide is not None or request.options is not None:
            self._options.check(request)
        if request.prompt_text is None:
            raise unsupported(self.name, "prompt", request, "it takes text, not token ids")
        if request.lora is not None:
            self._lora.check()
        self._sampling.check(request)

    def tensors(self, request: InferenceRequest) -> dict[str, Any]:
        """Inputs by name; `prompt_text` must be set."""
        tensors: dict[str, Any] = {
            "text_input": self._bos_of(request) + prompt_text(request, self.name),
            "max_tokens": request.max_tokens,
            **self._always,
            **self._sampling.tensors(request.sampling),
        }
        if self._has_stream:
            tensors["stream"] = request.stream
        if request.stop:
            tensors["stop_words"] = list(request.stop)
        if request.lora is not None:
            tensors |= self._lora.tensors(request.lora)
        for name in self._ids:
            value = getattr(request, name)
            if value is not None:
                tensors[name] = value
        if request.guide is not None or request.options is not None:
            tensors |= self._options.tensors(request)
        return tensors

    def _bos_of(self, request: InferenceRequest) -> str:
        if self.schema.adds_special_tokens:
            return ""
        return request.prompt_bos if request.options is None or request.options.add_special_tokens else ""

    def reader(self, request: InferenceRequest, sink: Sink) -> TextReader:
        return TextReader(self, request, sink)


def prompt_text(request: InferenceRequest, lane: str) -> str:
    """The prompt; a request without one was prepared for another lane."""
    if request.prompt_text is None:
        raise ValueError(f"the {lane} lane needs request.prompt_text")
    return request.prompt_text


class Deltas:
    """Deltas of a text that is sent whole each time. Text already passed on stays, whatever comes later."""

    __slots__ = ("_held", "_shown")

    def __init__(self) -> None:
        self._shown = ""
        self._held = ""

    def push(self, so_far: str) -> str:
        """What is new; an unfinished character at the end is held back until it is whole."""
        whole = so_far.rstrip(_REPLACEMENT)
        self._held = so_far[len(whole) :]
        if len(whole) <= len(self._shown):  # a stop string cut off again, or nothing new
            return ""
        new = whole[len(self._shown) :]
        self._shown = whole
        return new

    def flush(self) -> str:
        """What was held back and never became whole."""
        held, self._held = self._held, ""
        return held


class TextReader:
    """Reads one answer of an ensemble or BLS."""

    __slots__ = ("_deltas", "_lane", "_last", "_over", "_request", "_sink", "_tokens")

    def __init__(self, lane: TextLane, request: InferenceRequest, sink: Sink) -> None:
        self._lane = lane
        self._request = request
        self._sink = sink
        cumulative = lane.schema.text_mode == "cumulative" and request.stream
        self._deltas = Deltas() if cumulative else None
        self._last: dict[str, Any] | None = None
        self._tokens: int | None = None
        self._over = False

    def event(self, outputs: dict[str, Any]) -> None:
        """One response. Raises ProtocolError when it is not of the schema."""
        if self._over:
            return
        chunk = text(outputs, "text_output")
        if chunk is None:
            self._failed(outputs)
            return
        self._last = outputs
        new = number(outputs, "num_output_tokens")  # of this response alone
        if new is not None:
            self._tokens = new + (self._tokens or 0)
        if self._deltas is not None:
            chunk = self._deltas.push(chunk)
        if chunk or new:
            self._sink.text(chunk, new)

    def finish(self) -> None:
        """The server ended the stream; the engine's metrics tell whether the answer is whole."""
        if self._over:
            return
        self._over = True
        if self._last is None:
            self._sink.lost(StreamBrokenError("the server ended the stream before a first response"))
            return
        at_limit = self._tokens is not None and self._tokens >= self._request.max_tokens
        if self._lane.proves_end and not at_limit and not is_finished(self._last):
            self._sink.lost(StreamBrokenError("the server ended the stream before the engine had finished"))
            return
        if self._deltas is not None and (held := self._deltas.flush()):
            self._sink.text(held)
        self._sink.end(self._reason(at_limit), self._usage(self._last))

    def _failed(self, outputs: dict[str, Any]) -> None:
        error = told_error(outputs, "text_output")
        self._over = True
        self._sink.lost(error)

    def _reason(self, at_limit: bool) -> FinishReason | None:
        if at_limit:
            return "length"
        return None if self._tokens is None else "stop"

    def _usage(self, last: dict[str, Any]) -> Usage:
        prompt = number(last, "num_input_tokens")
        blocks = self._lane.schema.tokens_per_block
        cached = cached_tokens(last, "kv_cache_reused_blocks", blocks, prompt)
        return Usage(prompt, self._tokens, cached, engine=engine_times(last))
