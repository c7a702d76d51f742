"""Lane of Triton's vLLM backend: text in, deltas of text out, sampling as one JSON text.

Every response says how many tokens it brings, and the last one why the answer ended. Log probabilities come
with the likeliest other tokens. Source: `src/` of triton-inference-server/vllm_backend.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from inference.errors import ProtocolError, StreamBrokenError
from inference.lanes.adapter import no_adapter
from inference.lanes.outputs import number, text, told_error
from inference.lanes.sampling import unsupported
from inference.lanes.text import prompt_text
from inference.lanes.vllm_parameters import check_options, sampling_parameters, stops_told
from inference.request import InferenceRequest, Usage
from inference.schema import Schema
from inference.sink import FinishReason, Sink, TokenScore

_FLAGS = (
    "exclude_input_in_output",
    "return_finish_reason",
    "return_num_input_tokens",
    "return_num_output_tokens",
)
_REASONS: dict[str, FinishReason] = {"stop": "stop", "length": "length"}
_encode = msgspec.json.Encoder().encode


class _LogProb(msgspec.Struct):
    logprob: float
    rank: int | None = None


_log_probs = msgspec.json.Decoder(list[dict[int, _LogProb]] | None).decode
"""One object per token; its first key is the chosen one."""


class VllmLane:
    """Schema of the vLLM backend's model."""

    name = "vllm"

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.takes_stop = False
        self._always = {flag: True for flag in _FLAGS if flag in schema.inputs}
        self._has_stream = "stream" in schema.inputs
        self.tells_reason = "return_finish_reason" in schema.inputs and "finish_reason" in schema.outputs
        self.has_log_probs = "return_logprobs" in schema.inputs and "logprobs" in schema.outputs

    def check(self, request: InferenceRequest) -> None:
        """Raise UnsupportedFeatureError for what vLLM cannot be told or has no tensor for."""
        if request.stream and not self._has_stream:
            raise unsupported(self.name, "stream", request)
        if request.sampling.log_probs and not self.has_log_probs:
            raise unsupported(self.name, "logprobs", request)
        if request.lora is not None:
            raise no_adapter(self.name)
        check_options(self.name, request)
        if request.prompt_text is None:
            raise unsupported(self.name, "prompt", request, "it takes text, not token ids")

    def tensors(self, request: InferenceRequest) -> dict[str, Any]:
        """Inputs by name; `prompt_text` must be set."""
        tensors: dict[str, Any] = {
            "text_input": prompt_text(request, self.name),
            "sampling_parameters": _encode(sampling_parameters(request)).decode(),
            **self._always,
        }
        if self._has_stream:
            # The gateway cancels at a stop string that vLLM does not look for, so it must see it come.
            tensors["stream"] = request.stream or bool(request.stop and not stops_told(request))
        if request.sampling.log_probs:
            tensors["return_logprobs"] = True
        return tensors

    def reader(self, request: InferenceRequest, sink: Sink) -> VllmReader:
        return VllmReader(self, request, sink)


class VllmReader:
    """Reads one answer of the vLLM backend."""

    __slots__ = ("_any", "_lane", "_over", "_prompt", "_reason", "_request", "_sink", "_tokens")

    def __init__(self, lane: VllmLane, request: InferenceRequest, sink: Sink) -> None:
        self._lane = lane
        self._request = request
        self._sink = sink
        self._tokens: int | None = None
        self._prompt: int | None = None
        self._reason: str | None = None
        self._any = False
        self._over = False

    def event(self, outputs: dict[str, Any]) -> None:
        """One response. Raises ProtocolError when it is not of the schema."""
        if self._over:
            return
        chunk = text(outputs, "text_output")
        if chunk is None or "error" in outputs:
            self._failed(outputs)
            return
        self._any = True
        self._reason = text(outputs, "finish_reason")
        new = number(outputs, "num_output_tokens")  # of this response alone
        if new is not None:
            self._tokens = new + (self._tokens or 0)
            self._prompt = number(outputs, "num_input_tokens")
        if self._request.sampling.log_probs and (told := text(outputs, "logprobs")) is not None:
            self._sink.scores(_scores(told, self._request.sampling.top_log_probs))
        if chunk or new:
            self._sink.text(chunk, new)

    def finish(self) -> None:
        """The server ended the stream: whole with a reason."""
        if self._over:
            return
        self._over = True
        reason = _REASONS.get((self._reason or "").lower())
        if not self._any:
            self._sink.lost(StreamBrokenError("the server ended the stream before a first response"))
        elif reason is None and self._lane.tells_reason:
            self._sink.lost(StreamBrokenError("the server ended the stream before the engine had finished"))
        else:
            self._sink.end(reason, Usage(self._prompt, self._tokens, counts_end=self._hides_ends()))

    def _hides_ends(self) -> bool:
        """Whether no token that ends the answer is part of it."""
        options = self._request.options
        return options is None or not (options.kept_stop and options.stop_token_ids)

    def _failed(self, outputs: dict[str, Any]) -> None:
        error = told_error(outputs, "text_output")
        self._over = True
        self._sink.lost(error)


def _scores(told: str, top: int) -> list[TokenScore]:
    """The tokens of one response; of each as many likeliest ones as were asked for."""
    return [_score(entry, top) for entry in _decoded(told) if entry]


def _score(entry: Mapping[int, _LogProb], top: int) -> TokenScore:
    token = next(iter(entry))
    if not top:
        return TokenScore(token, entry[token].logprob)
    ranked = sorted((value.rank or 0, number, value.logprob) for number, value in entry.items())
    return TokenScore(
        token, entry[token].logprob, tuple((number, log_prob) for _, number, log_prob in ranked[:top])
    )


def _decoded(told: str) -> list[dict[int, _LogProb]]:
    try:
        return _log_probs(told) or []
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ProtocolError(f"output logprobs cannot be read: {error}") from error
