"""What a request to the vLLM backend's model asks for: flags, and `sampling_parameters` as JSON.

The real backend casts values by the types of vLLM's SamplingParams, so that numbers may be texts; what it
cannot read, or does not know, becomes the error of an object that is missing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from emulator.engine import EngineError, EngineRequest, SamplingParams
from emulator.engine.tokenizer import EngineTokenizer
from emulator.triton.tensors import Tensors, scalar, text

UNREADABLE = "'NoneType' object has no attribute 'lora_name'"
"""What the real backend says of sampling parameters that vLLM refuses."""
ECHO_STREAMED = "When streaming, `exclude_input_in_output` = False is not allowed."
_DEFAULT_MAX_TOKENS = 16
_INTS = ("max_tokens", "min_tokens", "top_k", "seed", "logprobs", "n")
_FLOATS = ("temperature", "top_p", "repetition_penalty", "presence_penalty", "frequency_penalty")
_FLAGS = (
    "return_finish_reason",
    "return_cumulative_logprob",
    "return_logprobs",
    "return_num_input_tokens",
    "return_num_output_tokens",
)


@dataclass(frozen=True, slots=True)
class VllmOptions:
    """How the answer is to look."""

    prompt: str
    streaming: bool
    echo: bool
    flags: frozenset[str]
    stops: tuple[str, ...]
    keeps_stop: bool
    logprobs: int | None


def parameters_in(tensors: Tensors, parameters: dict[str, Any]) -> dict[str, Any]:
    """`sampling_parameters`, or without that tensor the request's own parameters."""
    given = text(tensors, "sampling_parameters")
    asked = parameters if given is None else json.loads(given)
    return dict(asked)


def options_of(tensors: Tensors, asked: dict[str, Any]) -> VllmOptions:
    streaming = bool(scalar(tensors, "stream", False))
    exclude = scalar(tensors, "exclude_input_in_output", None)
    echo = not streaming if exclude is None else not exclude
    if echo and streaming:
        raise EngineError(ECHO_STREAMED)
    stop = asked.get("stop") or []
    return VllmOptions(
        prompt=text(tensors, "text_input") or "",
        streaming=streaming,
        echo=echo,
        flags=frozenset(flag for flag in _FLAGS if scalar(tensors, flag, False)),
        stops=(stop,) if isinstance(stop, str) else tuple(stop),
        keeps_stop=bool(asked.get("include_stop_str_in_output", False)),
        logprobs=None if asked.get("logprobs") is None else int(asked["logprobs"]),
    )


def engine_request(
    number: str, options: VllmOptions, asked: dict[str, Any], tokenizer: EngineTokenizer
) -> EngineRequest:
    """Raises EngineError in the real backend's words."""
    values = _cast(asked)
    return EngineRequest(
        request_id=number,
        input_ids=tuple(tokenizer.encode(options.prompt)),
        max_tokens=values.get("max_tokens", _DEFAULT_MAX_TOKENS),
        end_id=tokenizer.eos_id,
        sampling=SamplingParams(
            temperature=values.get("temperature", 1.0),
            top_k=max(0, values.get("top_k", 0)),
            top_p=values.get("top_p", 1.0),
            repetition_penalty=values.get("repetition_penalty", 1.0),
            presence_penalty=values.get("presence_penalty", 0.0),
            frequency_penalty=values.get("frequency_penalty", 0.0),
            min_tokens=values.get("min_tokens", 0),
            seed=values.get("seed"),
        ),
        return_log_probs=options.logprobs is not None or "return_cumulative_logprob" in options.flags,
        top_log_probs=options.logprobs or 0,
        fault=asked.get("fault"),
    )


_KNOWN = {*_INTS, *_FLOATS, "stop", "include_stop_str_in_output", "lora_name", "fault"}


def _cast(asked: dict[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    try:
        for name, value in asked.items():
            if name not in _KNOWN:
                raise TypeError(name)
            if value is not None:
                cast = int if name in _INTS else float if name in _FLOATS else None
                values[name] = cast(value) if cast else value
        if (
            not 0 < values.get("top_p", 1.0) <= 1
            or values.get("max_tokens", 1) < 1
            or values.get("n", 1) != 1
        ):
            raise ValueError
    except (TypeError, ValueError) as error:
        raise EngineError(UNREADABLE) from error
    return values
