"""Lane of Triton's vLLM backend: text in, deltas of text out, sampling as one JSON text.

Every response says how many tokens it brings, and the last one why the answer ended. Log probabilities come
with the likeliest other tokens. Source: `src/` of triton-inference-server/vllm_backend.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from inference.classify import classify_error
from inference.errors import ProtocolError, StreamBrokenError
from inference.lanes.outputs import number, text
from inference.lanes.sampling import unsupported
from inference.lanes.text import prompt_text
from inference.request import InferenceRequest, Sampling, Usage
from inference.schema import Schema
from inference.sink import FinishReason, Sink, TokenScore

_FLAGS = (
    "exclude_input_in_output",
    "return_finish_reason",
    "return_num_input_tokens",
    "return_num_output_tokens",
)
_COPIED = (
    "top_k",
    "top_p",
    "min_tokens",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
)
_REASONS: dict[str, FinishReason] = {"stop": "stop", "length": "length"}
_SEED_MASK = (1 << 63) - 1
"""vLLM takes -1 for no seed."""
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
        self._always = {flag: True for flag in _FLAGS if flag in schema.inputs}
        self.tells_reason = "return_finish_reason" in schema.inputs and "finish_reason" in schema.outputs
        self.has_log_probs = "return_logprobs" in schema.inputs and "logprobs" in schema.outputs

    def check(self, request: InferenceRequest) -> None:
        """Raise UnsupportedFeatureError for what an older backend has no tensor for."""
        if request.stream and "stream" not in self.schema.inputs:
            raise unsupported(self.name, "stream")
        if request.sampling.log_probs and not self.has_log_probs:
            raise unsupported(self.name, "logprobs")

    def tensors(self, request: InferenceRequest) -> dict[str, Any]:
        """Inputs by name; `prompt_text` must be set."""
        tensors: dict[str, Any] = {
            "text_input": prompt_text(request, self.name),
            "sampling_parameters": _encode(self._parameters(request)).decode(),
            **self._always,
        }
        if "stream" in self.schema.inputs:
            tensors["stream"] = request.stream
        if self.wants_tokens(request):
            tensors["return_logprobs"] = True
        return tensors

    def wants_tokens(self, request: InferenceRequest) -> bool:
        """Whether responses name their tokens: asked for, or to tell a stop string from an end token."""
        return self.has_log_probs and (request.sampling.log_probs or bool(request.stop))

    def _parameters(self, request: InferenceRequest) -> dict[str, Any]:
        parameters = {"max_tokens": request.max_tokens, **sampling_parameters(request.sampling)}
        if request.stop:
            parameters["stop"] = list(request.stop)
        if self.wants_tokens(request):
            parameters["logprobs"] = request.sampling.top_log_probs
        return parameters

    def reader(self, request: InferenceRequest, sink: Sink) -> VllmReader:
        return VllmReader(self, request, sink)


def sampling_parameters(sampling: Sampling) -> dict[str, Any]:
    """`sampling` by the names of vLLM's SamplingParams. Equal requests without a seed differ as they are."""
    parameters = {name: value for name in _COPIED if (value := getattr(sampling, name)) is not None}
    if sampling.temperature is not None:
        parameters["temperature"] = sampling.temperature
    if sampling.top_p == 0:
        parameters |= {"top_p": 1.0, "temperature": 0.0}
    if sampling.seed is not None:
        parameters["seed"] = sampling.seed & _SEED_MASK
    return parameters


class VllmReader:
    """Reads one answer of the vLLM backend."""

    __slots__ = ("_any", "_lane", "_newest", "_over", "_prompt", "_reason", "_request", "_sink", "_tokens")

    def __init__(self, lane: VllmLane, request: InferenceRequest, sink: Sink) -> None:
        self._lane = lane
        self._request = request
        self._sink = sink
        self._tokens: int | None = None
        self._prompt: int | None = None
        self._reason: str | None = None
        self._newest: str | None = None
        """Log probabilities of the last response that brought a token."""
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
        if (told := text(outputs, "logprobs")) is not None and len(told) > 2:
            self._newest = told
            if self._request.sampling.log_probs:
                self._sink.scores(_scores(told, self._request.sampling.top_log_probs))
        if chunk:
            self._sink.text(chunk)

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
            by_text = reason == "stop" and bool(self._request.stop) and not self._ends_by_token()
            self._sink.end(reason, Usage(self._prompt, self._tokens, None, by_text))

    def _ends_by_token(self) -> bool:
        """Whether the last token is one that ends an answer."""
        request = self._request
        own = request.stop_ids[: len(request.stop_ids) - len(request.stop)]
        ends = {request.end_id, *(ids[0] for ids in own if len(ids) == 1)}
        entries = _decoded(self._newest)
        return not entries or next(iter(entries[-1]), None) in ends

    def _failed(self, outputs: dict[str, Any]) -> None:
        if "error" not in outputs:
            raise ProtocolError(f"a response without text_output: {', '.join(outputs)[:80] or 'nothing'}")
        self._over = True
        self._sink.lost(classify_error(200, str(outputs["error"])))


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


def _decoded(told: str | None) -> list[dict[int, _LogProb]]:
    if told is None:
        return []
    try:
        return _log_probs(told) or []
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ProtocolError(f"output logprobs cannot be read: {error}") from error
