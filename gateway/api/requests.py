"""ApiRequest: one request of a client, parsed once and checked, whatever lane will serve it.

The limits are OpenAI's. Mistakes are ApiError 400 with the field's path and a remedy. Fields that are valid
at OpenAI but not served by the Triton lanes are recorded, not refused: `ApiRequest.refuse_unserved` does that
where a Triton lane was chosen.
"""

from __future__ import annotations

from typing import Any, Literal, cast

from msgspec import Struct

from gateway.api.errors import bad_request
from gateway.api.fields import FITS, Body, ChatBody, CompletionBody, typed
from gateway.api.json_body import BodyLimits, decode_object
from gateway.api.messages import read_conversation
from gateway.api.unserved import (
    CHAT_FEATURES,
    COMPLETION_FEATURES,
    Unsupported,
    refuse_unserved,
    unserved_features,
)
from inference.request import Sampling

__all__ = ["ApiRequest", "BodyLimits", "parse_chat", "parse_completion"]

MAX_STOP_CHARACTERS = 1000
DEFAULT_COMPLETION_TOKENS = 16
"""What OpenAI generates for `/v1/completions` without `max_tokens`."""
_CHAT_KEYS = frozenset(ChatBody.__struct_fields__)
_COMPLETION_KEYS = frozenset(CompletionBody.__struct_fields__)


class ApiRequest(Struct):
    """A request as the client meant it."""

    kind: Literal["chat", "completion"]
    raw: dict[str, Any]
    """The client's JSON object, for the `openai-http` lane."""
    model: str
    """As the client wrote it: alias and profile suffix included."""
    messages: list[dict[str, Any]] | None
    """For a chat template: `role`, `content` (always a string) and, if given, `name`."""
    prompts: list[str] | list[list[int]] | None
    stream: bool
    include_usage: bool
    n: int
    max_tokens: int | None
    """None: as many as the context leaves room for."""
    sampling: Sampling
    stop: tuple[str, ...]
    logprobs: bool
    top_logprobs: int | None
    echo: bool
    service_tier: str | None
    user: str | None
    unsupported: tuple[Unsupported, ...]
    """What the Triton lanes cannot serve."""
    unknown: tuple[str, ...]
    """Fields that OpenAI does not know."""

    def refuse_unserved(self) -> None:
        """Raise ApiError 400 for what a Triton lane would have to ignore."""
        if self.unsupported or self.unknown:
            known = _CHAT_KEYS if self.kind == "chat" else _COMPLETION_KEYS
            refuse_unserved(self.unsupported, self.unknown, sorted(known))


def parse_chat(body: bytes, limits: BodyLimits) -> ApiRequest:
    """The body of `POST /v1/chat/completions`. Raises ApiError 400 or 413, nothing else."""
    raw = decode_object(body, limits)
    chat = typed(raw, ChatBody)
    if chat.top_logprobs and not chat.logprobs:
        raise bad_request("`top_logprobs` needs `logprobs`. Set `logprobs` to true.", "top_logprobs")
    conversation = read_conversation(chat.messages, raw["messages"])
    max_tokens = _chat_max_tokens(chat)
    return ApiRequest(
        kind="chat",
        raw=raw,
        model=chat.model,
        messages=conversation.messages,
        prompts=None,
        stream=bool(chat.stream),
        include_usage=_include_usage(chat),
        n=_choices(chat, 1, limits),
        max_tokens=max_tokens,
        sampling=_sampling(chat, max_tokens, bool(chat.logprobs), chat.top_logprobs),
        stop=_stop(chat),
        logprobs=bool(chat.logprobs),
        top_logprobs=chat.top_logprobs,
        echo=False,
        service_tier=chat.service_tier,
        user=chat.user,
        unsupported=(
            *_common_unserved(chat),
            *unserved_features(raw, CHAT_FEATURES),
            *conversation.unsupported,
        ),
        unknown=(*_unknown(raw, _CHAT_KEYS), *conversation.unknown),
    )


def parse_completion(body: bytes, limits: BodyLimits) -> ApiRequest:
    """The body of `POST /v1/completions`. Raises ApiError 400 or 413, nothing else."""
    raw = decode_object(body, limits)
    completion = typed(raw, CompletionBody)
    prompts = _prompts(completion.prompt)
    max_tokens = DEFAULT_COMPLETION_TOKENS if completion.max_tokens is None else completion.max_tokens
    n = _choices(completion, len(prompts), limits)
    return ApiRequest(
        kind="completion",
        raw=raw,
        model=completion.model,
        messages=None,
        prompts=prompts,
        stream=bool(completion.stream),
        include_usage=_include_usage(completion),
        n=n,
        max_tokens=max_tokens,
        sampling=_sampling(completion, max_tokens, completion.logprobs is not None, completion.logprobs),
        stop=_stop(completion),
        logprobs=completion.logprobs is not None,
        top_logprobs=completion.logprobs,
        echo=bool(completion.echo),
        service_tier=completion.service_tier,
        user=completion.user,
        unsupported=(*_common_unserved(completion), *_completion_unserved(completion, raw, n)),
        unknown=tuple(_unknown(raw, _COMPLETION_KEYS)),
    )


def _chat_max_tokens(chat: ChatBody) -> int | None:
    old, new = chat.max_tokens, chat.max_completion_tokens
    if old is not None and new is not None and old != new:
        raise bad_request(
            "`max_tokens` and `max_completion_tokens` differ. Send only the latter.", "max_tokens"
        )
    return old if new is None else new


def _include_usage(body: Body) -> bool:
    if body.stream_options is None:
        return False
    if not body.stream:
        raise bad_request("`stream_options` needs `stream`. Set `stream` to true.", "stream_options")
    return bool(body.stream_options.include_usage)


def _choices(body: Body, prompts: int, limits: BodyLimits) -> int:
    """How many answers each prompt gets."""
    n = 1 if body.n is None else body.n
    if n > limits.max_choices:
        raise bad_request(f"`n` must be an integer from 1 to {limits.max_choices} here.", "n")
    if n * prompts > limits.max_choices:
        message = (
            f"`prompt` asks for {n * prompts} answers; {limits.max_choices} are allowed here in one request."
        )
        raise bad_request(f"{message} Send several requests.", "prompt")
    return n


def _sampling(body: Body, max_tokens: int | None, log_probs: bool, top: int | None) -> Sampling:
    if body.min_tokens is not None and max_tokens is not None and body.min_tokens > max_tokens:
        raise bad_request("`min_tokens` is above `max_tokens`. Lower it.", "min_tokens")
    return Sampling(
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=body.top_k if body.top_k is not None and body.top_k > 0 else None,
        min_tokens=body.min_tokens,
        seed=body.seed,
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
        repetition_penalty=body.repetition_penalty,
        log_probs=log_probs,
        top_log_probs=top or 0,
    )


def _stop(body: Body) -> tuple[str, ...]:
    if body.stop is None:
        return ()
    single = isinstance(body.stop, str)
    strings = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop)
    if "" in strings:
        param = "stop" if single else f"stop[{strings.index('')}]"
        raise bad_request(f"`{param}` is an empty string. Give at least one character.", param)
    for i, string in enumerate(strings):
        if len(string) > MAX_STOP_CHARACTERS:
            param = "stop" if single else f"stop[{i}]"
            raise bad_request(
                f"`{param}` is longer than {MAX_STOP_CHARACTERS} characters. Shorten it.", param
            )
    return strings


def _prompts(prompt: str | list[str | int | list[int]] | None) -> list[str] | list[list[int]]:
    """One prompt or several, as text or token ids; null is the empty prompt."""
    if prompt is None or isinstance(prompt, str):
        return [prompt or ""]
    kinds = set(map(type, prompt))
    if kinds == {str}:
        return cast("list[str]", prompt)
    if kinds == {int}:
        return [_token_ids(cast("list[int]", prompt), "prompt")]
    if kinds == {list}:
        lists = cast("list[list[int]]", prompt)
        return [_token_ids(ids, f"prompt[{i}]") for i, ids in enumerate(lists)]
    raise bad_request(f"`prompt` must be {FITS['prompt']}; it is empty or mixes them.", "prompt")


def _token_ids(ids: list[int], place: str) -> list[int]:
    if not ids or min(ids) < 0 or max(ids) >= 2**31:
        raise bad_request(f"`{place}` must be an array of token ids from 0 to 2147483647.", place)
    return ids


def _common_unserved(body: Body) -> list[Unsupported]:
    found = []
    if body.top_p == 0:
        found.append(Unsupported("top_p", "it must be above 0; for the likeliest token set temperature to 0"))
    if body.stream_options is not None and body.stream_options.include_obfuscation:
        why = "obfuscation is not served here"
        found.append(Unsupported("stream_options.include_obfuscation", why))
    return found


def _completion_unserved(body: CompletionBody, raw: dict[str, Any], n: int) -> list[Unsupported]:
    found = unserved_features(raw, COMPLETION_FEATURES)
    if body.max_tokens == 0:
        found.append(Unsupported("max_tokens", "at least one token is generated here"))
    if body.best_of is not None and body.best_of > n:
        found.append(Unsupported("best_of", "every answer that is generated is returned: use n"))
    return found


def _unknown(raw: dict[str, Any], known: frozenset[str]) -> list[str]:
    return [] if raw.keys() <= known else [key for key in raw if key not in known]
