"""Lane of the bare `tensorrt_llm` model: token ids in, token ids out.

The default wherever present: exact counts, clean cancellation, log probabilities. The number tensors
(`return_num_*`) stay off because ids are counted here and each costs bytes in every streamed response; the
performance metrics are on because they prove that an answer is whole when the engine leaves out its end
token, and tell how long it waited there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from inference.errors import ProtocolError, StreamBrokenError
from inference.lanes.adapter import LoraTensors
from inference.lanes.options import OptionTensors, words_list
from inference.lanes.outputs import cached_tokens, engine_times, is_finished, outputs_of, told_error
from inference.lanes.sampling import SamplingTensors, unsupported
from inference.request import InferenceRequest, Usage
from inference.schema import Schema
from inference.sink import FinishReason, Sink

_SAMPLING = {
    "temperature": ("temperature",),
    "top_p": ("runtime_top_p",),
    "top_k": ("runtime_top_k",),
    "min_tokens": ("min_tokens", "min_length"),  # 1.x, ≤ 0.19
    "seed": ("seed", "random_seed"),  # 1.x, ≤ 0.19
    "presence_penalty": ("presence_penalty",),
    "frequency_penalty": ("frequency_penalty",),
    "repetition_penalty": ("repetition_penalty",),
}


_IDS = 1 << 31
"""Ids are 32 bits, signed (contract sheet 1)."""


class _Token(msgspec.Struct, gc=False):
    output_ids: Any = None


_token = msgspec.json.Decoder(_Token).decode


class BareLane:
    """The bare model's schema, in the dialect its inputs show."""

    name = "tensorrt_llm"

    def __init__(self, schema: Schema) -> None:
        declared = schema.inputs
        self.schema = schema
        self.takes_stop = "stop" in schema.inputs
        self._sampling = SamplingTensors(schema, _SAMPLING)
        self._options = OptionTensors(schema)
        self._lora = LoraTensors(schema)
        self._always = {
            flag: True for flag in ("exclude_input_in_output", "return_perf_metrics") if flag in declared
        }
        self._has_streaming = "streaming" in declared
        self._has_stop_words = "stop_words_list" in declared
        self._has_log_probs = "return_log_probs" in declared and "output_log_probs" in schema.outputs
        self._ids = tuple(name for name in ("end_id", "pad_id") if name in declared)
        self.proves_end = "return_perf_metrics" in declared and "last_token_time_ns" in schema.outputs

    def check(self, request: InferenceRequest) -> None:
        """Raise UnsupportedFeatureError for what this engine declares no tensor for."""
        if request.stream and not (self.schema.decoupled and self._has_streaming):
            raise unsupported(self.name, "stream", request)
        if request.stop and not self._has_stop_words:
            raise unsupported(self.name, "stop", request)
        if request.sampling.log_probs:
            self._check_log_probs(request)
        if request.guide is not None or request.options is not None:
            self._options.check(request)
        if request.lora is not None:
            self._lora.check()
        self._sampling.check(request)

    def _check_log_probs(self, request: InferenceRequest) -> None:
        """The engine gives the chosen tokens' only (contract sheet 1.9)."""
        if not self._has_log_probs:
            raise unsupported(self.name, "logprobs", request)
        if request.sampling.top_log_probs:
            raise unsupported(
                self.name, "top_logprobs", request, "its engine tells those of the chosen tokens only"
            )

    def tensors(self, request: InferenceRequest) -> dict[str, Any]:
        """Inputs by name; `prompt_ids` must be set."""
        ids = request.prompt_ids
        if ids is None:
            raise ValueError("the tensorrt_llm lane needs request.prompt_ids")
        tensors: dict[str, Any] = {
            "input_ids": ids,
            "input_lengths": len(ids),
            "request_output_len": request.max_tokens,
            **self._always,
            **self._sampling.tensors(request.sampling),
        }
        if self._has_streaming:
            tensors["streaming"] = request.stream
        if request.stop_ids and self._has_stop_words:
            tensors["stop_words_list"] = words_list(request.stop_ids)
        if request.sampling.log_probs:
            tensors["return_log_probs"] = True
        if request.guide is not None or request.options is not None:
            tensors |= self._options.tensors(request)
        if request.lora is not None:
            tensors |= self._lora.tensors(request.lora)
        for name in self._ids:
            value = getattr(request, name)
            if value is not None:
                tensors[name] = value
        return tensors

    def reader(self, request: InferenceRequest, sink: Sink) -> BareReader:
        return BareReader(self, request, sink)


class BareReader:
    """Reads one answer. `event` runs once per token."""

    __slots__ = (
        "_ids",
        "_lane",
        "_last",
        "_over",
        "_request",
        "_sink",
        "_unread",
        "_wants_log_probs",
    )

    def __init__(self, lane: BareLane, request: InferenceRequest, sink: Sink) -> None:
        self._lane = lane
        self._request = request
        self._sink = sink
        self._wants_log_probs = request.sampling.log_probs
        self._ids: list[int] = []
        self._last: dict[str, Any] | None = None
        self._unread: bytes | None = None
        """The last response, where only its token has been looked at."""
        self._over = False

    def payload(self, json: bytes) -> None:
        """As `event`, of JSON. The other outputs, a dozen, are read of the last response only.

        Raises what msgspec raises.
        """
        token = _token(json).output_ids
        if token.__class__ is not int or not 0 <= token < _IDS or self._wants_log_probs or self._over:
            self.event(outputs_of(json))
            return
        self._unread = json
        self._ids.append(token)
        self._sink.tokens((token,), None)  # looked up each time: a sink may put another in its place

    def event(self, outputs: dict[str, Any]) -> None:
        """One response. Raises ProtocolError when it is not of the schema."""
        if self._over:
            return
        token = outputs.get("output_ids")
        if token.__class__ is int and 0 <= token < _IDS:  # one token: nearly every time
            ids = [token]
        else:
            ids = self._several(outputs, token)
            if not ids:
                return
        self._last, self._unread = outputs, None
        self._ids += ids
        if self._wants_log_probs:
            self._sink.tokens(ids, _newest_log_probs(outputs, len(ids)))
        else:
            self._sink.tokens(ids, None)

    def finish(self) -> None:
        """The server ended the stream; whether the answer is whole is asked of the answer itself."""
        if self._over:
            return
        self._over = True
        if self._unread is not None:
            self._last = outputs_of(self._unread)
        if self._last is None:
            self._sink.lost(StreamBrokenError("the server ended the stream before a first response"))
            return
        reason = self._reason(self._last)
        if reason is None:
            self._sink.lost(
                StreamBrokenError(f"the server ended the stream after {len(self._ids)} tokens, unfinished")
            )
            return
        self._sink.end(reason, self._usage(self._last))

    def _several(self, outputs: dict[str, Any], ids: Any) -> list[int]:
        """Ids of a response with any number of tokens but one; an error ends the answer."""
        if ids is None:
            self._failed(outputs)
            return []
        self._last, self._unread = outputs, None
        if ids.__class__ is int and ids < 0:  # a lone -1: padding
            return []
        if ids.__class__ is not list or any(token.__class__ is not int or token >= _IDS for token in ids):
            raise ProtocolError(f"output_ids should be token ids and is {str(ids)[:40]!r}")
        length = outputs.get("sequence_length")
        if length.__class__ is int and length < len(ids):
            ids = ids[:length]
        while ids and ids[-1] < 0:
            ids.pop()
        return list(ids)

    def _failed(self, outputs: dict[str, Any]) -> None:
        error = told_error(outputs, "output_ids")
        self._over = True
        self._sink.lost(error)

    def _reason(self, last: dict[str, Any]) -> FinishReason | None:
        """Why the answer ended; None when it is not whole."""
        ids, request = self._ids, self._request
        if ids and (ids[-1] == request.end_id or any(_ends_with(ids, word) for word in request.stop_ids)):
            return "stop"
        if len(ids) >= request.max_tokens:
            return "length"
        if is_finished(last) or not self._lane.proves_end:
            return "stop"
        return None

    def _usage(self, last: dict[str, Any]) -> Usage:
        prompt = len(self._request.prompt_ids or ())
        cached = cached_tokens(last, "kv_cache_reused_blocks", self._lane.schema.tokens_per_block, prompt)
        return Usage(prompt, len(self._ids), cached, engine=engine_times(last))


def _ends_with(ids: list[int], word: Sequence[int]) -> bool:
    return bool(word) and ids[-len(word) :] == list(word)


def _newest_log_probs(outputs: dict[str, Any], count: int) -> list[float]:
    """Log probabilities of the newest ids: some engines send those of the whole answer in each response."""
    values = outputs.get("output_log_probs")
    if values.__class__ is not list:
        values = [] if values is None else [values]
    if len(values) < count:
        raise ProtocolError(f"{count} new tokens came with {len(values)} log probabilities")
    return [float(value) for value in values[-count:]]
