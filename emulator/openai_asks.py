"""Ask: a request in OpenAI's words, read and checked; what this small server does not do is refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from emulator.engine import SamplingParams
from emulator.engine.tokenizer import EngineTokenizer

_DEFAULT_MAX_TOKENS = 256
_SERVED = frozenset(
    {"model", "messages", "prompt", "stream", "stream_options", "n", "max_tokens", "max_completion_tokens"}
    | {"stop", "temperature", "top_p", "presence_penalty", "frequency_penalty", "seed", "fault"}
    | {"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"}
)
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "response_format": ({"type": "text"},),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True,),
    "top_k": (-1,),
    "repetition_penalty": (1,),
    "reasoning_effort": ("none",),
}
"""Values of other fields that ask for nothing, besides null, false, 0 and what is empty."""


class BadRequestError(Exception):
    """The request cannot be served as written; the text names the field."""


class UnservedError(Exception):
    """The request asks for what this small server does not do."""

    def __init__(self, field: str, remedy: str = "Remove it.") -> None:
        super().__init__(f"`{field}` is not supported so by the emulator's OpenAI server. {remedy}")
        self.field = field


@dataclass(frozen=True, slots=True)
class Ask:
    """One request, read and checked."""

    prompt: tuple[int, ...]
    max_tokens: int
    stops: tuple[str, ...]
    sampling: SamplingParams
    choices: int
    stream: bool
    include_usage: bool
    fault: str | None


def refuse_unserved(body: dict[str, Any]) -> None:
    """Raise UnservedError for a field that would have to be ignored."""
    for field, value in body.items():
        if field not in _SERVED and value and value not in _NEUTRAL.get(field, ()):
            raise UnservedError(field)


def read_ask(body: dict[str, Any], tokenizer: EngineTokenizer, *, chat: bool) -> Ask:
    """Reads a body in OpenAI's words; BadRequestError names the field that is wrong."""
    stop = body.get("stop") or ()
    stops = (stop,) if isinstance(stop, str) else tuple(stop)
    limit = body.get("max_completion_tokens") or body.get("max_tokens") or _DEFAULT_MAX_TOKENS
    seed = body.get("seed")
    try:
        return Ask(
            prompt=tuple(_chat_prompt(body, tokenizer) if chat else _text_prompt(body, tokenizer)),
            max_tokens=int(limit),
            stops=stops,
            sampling=SamplingParams(
                temperature=_number(body, "temperature", 1.0),
                top_p=_number(body, "top_p", 1.0),
                presence_penalty=_number(body, "presence_penalty", 0.0),
                frequency_penalty=_number(body, "frequency_penalty", 0.0),
                seed=None if seed is None else int(seed) % 2**64,
            ),
            choices=int(body.get("n") or 1),
            stream=bool(body.get("stream")),
            include_usage=bool((body.get("stream_options") or {}).get("include_usage")),
            fault=body.get("fault"),
        )
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise BadRequestError(f"a field has the wrong type: {error}") from error


def _chat_prompt(body: dict[str, Any], tokenizer: EngineTokenizer) -> list[int]:
    messages = body.get("messages")
    if not messages:
        raise BadRequestError("messages must not be empty")
    plain = [{"role": message["role"], "content": message["content"]} for message in messages]
    return tokenizer.encode(tokenizer.render_chat(plain), add_special_tokens=False)


def _text_prompt(body: dict[str, Any], tokenizer: EngineTokenizer) -> list[int]:
    prompt = body.get("prompt")
    if isinstance(prompt, list) and prompt and all(isinstance(token, int) for token in prompt):
        return prompt
    if isinstance(prompt, list) and prompt and not any(isinstance(one, bool) for one in prompt):
        raise UnservedError("prompt", "Send one text or one list of token ids.")
    if not isinstance(prompt, str):
        raise BadRequestError("prompt must be one text or one list of token ids")
    return tokenizer.encode(prompt)


def _number(body: dict[str, Any], name: str, default: float) -> float:
    value = body.get(name)
    return default if value is None else float(value)
