"""What a request to the vLLM backend's model asks for: flags, and `sampling_parameters` as JSON.

The real backend casts values by the types of vLLM's SamplingParams, so that numbers may be texts; what it
cannot read, or does not know, becomes the error of an object that is missing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emulator.engine import EngineError, EngineRequest, Guide, SamplingParams
from emulator.engine.tokenizer import EngineTokenizer
from emulator.triton.tensors import Tensors, scalar, text

UNREADABLE = "'NoneType' object has no attribute 'lora_name'"
"""What the real backend says of sampling parameters that vLLM refuses."""
ECHO_STREAMED = "When streaming, `exclude_input_in_output` = False is not allowed."
_DEFAULT_MAX_TOKENS = 16
_INTS = ("max_tokens", "min_tokens", "top_k", "seed", "logprobs", "n")
_FLOATS = ("temperature", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty")
_BOOLS = ("include_stop_str_in_output", "ignore_eos", "skip_special_tokens")
_LISTS = ("stop_token_ids", "allowed_token_ids", "bad_words")
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
    """Of stop strings, and of tokens that end the answer and have text."""
    skips_special: bool
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
        skips_special=bool(asked.get("skip_special_tokens", True)),
        logprobs=None if asked.get("logprobs") is None else int(asked["logprobs"]),
    )


def engine_request(
    number: str, options: VllmOptions, asked: dict[str, Any], tokenizer: EngineTokenizer, vocab: int
) -> EngineRequest:
    """Raises EngineError in the real backend's words."""
    values = _cast(asked)
    return EngineRequest(
        request_id=number,
        input_ids=tuple(tokenizer.encode(options.prompt)),
        max_tokens=values.get("max_tokens", _DEFAULT_MAX_TOKENS),
        end_id=None if values.get("ignore_eos") else tokenizer.eos_id,
        stop_words=tuple((int(token),) for token in values.get("stop_token_ids", ())),
        bad_words=tuple(_bad_words(values.get("bad_words", ()), tokenizer)),
        embedding_bias=_only(values["allowed_token_ids"], vocab) if "allowed_token_ids" in values else None,
        sampling=SamplingParams(
            temperature=values.get("temperature", 1.0),
            top_k=max(0, values.get("top_k", 0)),
            top_p=values.get("top_p", 1.0),
            repetition_penalty=values.get("repetition_penalty", 1.0),
            presence_penalty=values.get("presence_penalty", 0.0),
            frequency_penalty=values.get("frequency_penalty", 0.0),
            min_tokens=values.get("min_tokens", 0),
            min_p=values.get("min_p", 0.0),
            seed=values.get("seed"),
        ),
        return_log_probs=options.logprobs is not None or "return_cumulative_logprob" in options.flags,
        top_log_probs=options.logprobs or 0,
        guide=_guide(values.get("structured_outputs")),
        fault=asked.get("fault"),
    )


def _bad_words(words: Iterable[str], tokenizer: EngineTokenizer) -> Iterator[tuple[int, ...]]:
    """Each at the beginning of a text and after a space, as vLLM does."""
    for word in words:
        for form in (word.lstrip(), f" {word.lstrip()}"):
            yield tuple(tokenizer.encode(form, add_special_tokens=False))


def _only(allowed: Sequence[int], vocab: int) -> NDArray[np.float32]:
    """A bias that leaves nothing but `allowed`. Raises EngineError in vLLM's words."""
    if not allowed:
        raise EngineError("allowed_token_ids is not None and empty!")
    if min(allowed) < 0 or max(allowed) >= vocab:
        raise EngineError("allowed_token_ids contains out-of-vocab token id!")
    bias = np.full(vocab, -np.inf, np.float32)
    bias[list(allowed)] = 0
    return bias


def _guide(asked: dict[str, Any] | None) -> Guide | None:
    match asked:
        case None:
            return None
        case {"json_object": True}:
            return Guide("json_schema", '{"type": "object"}')
        case {"json": schema}:
            return Guide("json_schema", schema if isinstance(schema, str) else json.dumps(schema))
        case {"regex": str(text)}:
            return Guide("regex", text)
        case {"grammar": str(text)}:
            return Guide("ebnf_grammar", text)
    raise EngineError(UNREADABLE)


_CASTS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(_INTS, int),
    **dict.fromkeys(_FLOATS, float),
    **dict.fromkeys(_BOOLS, bool),
    **dict.fromkeys(_LISTS, list),
    "structured_outputs": json.loads,  # JSON text within the JSON
}
_KNOWN = {*_CASTS, "stop", "lora_name", "fault"}


def _cast(asked: dict[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    try:
        for name, value in asked.items():
            if name not in _KNOWN:
                raise TypeError(name)
            if value is not None:
                cast = _CASTS.get(name)
                values[name] = cast(value) if cast else value
        if (
            not 0 < values.get("top_p", 1.0) <= 1
            or values.get("max_tokens", 1) < 1
            or values.get("n", 1) != 1
            or not 0 <= values.get("min_p", 0.0) <= 1
        ):
            raise ValueError
    except (TypeError, ValueError) as error:
        raise EngineError(UNREADABLE) from error
    return values
