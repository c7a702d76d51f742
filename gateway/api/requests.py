"""ApiRequest: one request of a client, parsed once and checked, whatever lane will serve it.

The limits are OpenAI's. Mistakes are ApiError 400 with the field's path and a remedy. What a lane may not be
able to do is only read here: the lane that was chosen carries or refuses it. `ApiRequest.refuse_unserved`
refuses what no Triton lane could.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast

from msgspec import Struct, field

from gateway.api.errors import ApiError, bad_request
from gateway.api.fields import FITS, Body, ChatBody, CompletionBody, StreamOptions, typed
from gateway.api.json_body import BodyLimits, decode_object
from gateway.api.messages import read_conversation
from gateway.api.options import OPTION_KEYS, SERVER_KEYS, ApiOptions, read_options
from gateway.api.template_names import read_template_names
from gateway.api.tools import ToolUse, guide_of, read_tools
from gateway.api.translated import Translation
from gateway.api.unserved import (
    CHAT_FEATURES,
    Unsupported,
    refuse_unserved,
    unserved_features,
)
from inference.request import Extra, Guide, Sampling

__all__ = ["ApiRequest", "BodyLimits", "parse_chat", "parse_completion", "translated_chat"]

MAX_STOP_CHARACTERS = 1000
DEFAULT_COMPLETION_TOKENS = 16
"""What OpenAI generates for `/v1/completions` without `max_tokens`."""
_CHAT_KEYS = frozenset(ChatBody.__struct_fields__) | SERVER_KEYS
_COMPLETION_KEYS = frozenset(CompletionBody.__struct_fields__) | SERVER_KEYS
_PLAIN_COMPLETION_KEYS = frozenset(CompletionBody.__struct_fields__) - OPTION_KEYS
_TOOL_KEYS = frozenset({"tools", "tool_choice", "parallel_tool_calls"})
_TEMPLATE_KEYS = frozenset({"chat_template_kwargs", "reasoning_effort", "include_reasoning"})
_PLAIN_KEYS = (
    frozenset(ChatBody.__struct_fields__) - OPTION_KEYS - CHAT_FEATURES.keys() - _TOOL_KEYS - _TEMPLATE_KEYS
)
"""Fields of nearly every request: one with no other asks for nothing special, which one look tells."""
_STREAM_KEYS = frozenset(StreamOptions.__struct_fields__)


class ApiRequest(Struct, gc=False):
    """A request as the client meant it."""

    kind: Literal["chat", "completion"]
    raw: dict[str, Any]
    """The client's JSON object, for the `openai-http` lane."""
    model: str
    """As the client wrote it: alias and profile suffix included."""
    messages: list[dict[str, Any]] | None
    """For a chat template: `role`, `content` (always a string), if given `name`, and what tools bring."""
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
    """Fields that nobody knows."""
    options: ApiOptions | None = None
    """What few requests ask for."""
    tools: ToolUse | None = None
    tools_at: str | None = None
    """The first field that only a model with a `tool_parser` can serve."""
    template_names: Mapping[str, Any] = field(default_factory=dict)
    """Further names for the chat template."""
    include_reasoning: bool = True
    translation: Translation | None = None
    """Set where the client spoke another API than chat or text completions."""
    characters: int | None = None
    """Of the prompt's texts, where they were counted as it was read."""

    @property
    def answers(self) -> int:
        """Answers to generate for each prompt."""
        return self.n if self.options is None else max(self.n, self.options.best_of)

    @property
    def guide(self) -> Guide | None:
        """What form the answer must have."""
        return None if self.options is None else self.options.guide

    def refuse_unserved(self) -> None:
        """Raise ApiError 400 for what a Triton lane would have to ignore."""
        if self.unsupported or self.unknown:
            known = _CHAT_KEYS if self.kind == "chat" else _COMPLETION_KEYS
            refuse_unserved(self.unsupported, self.unknown, sorted(known))


def parse_chat(body: bytes, limits: BodyLimits) -> ApiRequest:
    """The body of `POST /v1/chat/completions`. Raises ApiError 400 or 413, nothing else."""
    return _read_chat(decode_object(body, limits), limits)


def translated_chat(raw: dict[str, Any], translation: Translation, limits: BodyLimits) -> ApiRequest:
    """The chat request `raw`, which stands for one of another API. ApiError 400 is in its words."""
    try:
        request = _read_chat(raw, limits)
    except ApiError as error:
        raise translation.retold(error) from None
    request.translation = translation
    return request


def _read_chat(raw: dict[str, Any], limits: BodyLimits) -> ApiRequest:
    chat = typed(raw, ChatBody)
    if chat.top_logprobs and not chat.logprobs:
        raise bad_request("`top_logprobs` needs `logprobs`. Set `logprobs` to true.", "top_logprobs")
    conversation = read_conversation(chat.messages, raw["messages"])
    plain = raw.keys() <= _PLAIN_KEYS and (chat.stream_options is None or _is_plain_stream(raw))
    tools = None if plain else read_tools(chat, conversation.unsupported)
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
            tuple(conversation.unsupported)
            if plain
            else (*unserved_features(raw, CHAT_FEATURES), *conversation.unsupported)
        ),
        unknown=(
            tuple(conversation.unknown)
            if plain
            else (*_unknown(raw, chat, _CHAT_KEYS), *conversation.unknown)
        ),
        options=None if plain else _with_guide_of(tools, read_options(raw, chat)),
        tools=tools,
        tools_at="tools" if tools is not None else conversation.tools_at,
        template_names={} if plain else read_template_names(chat),
        include_reasoning=plain or chat.include_reasoning is not False,
        characters=conversation.characters if plain else None,
    )


def _with_guide_of(tools: ToolUse | None, options: ApiOptions | None) -> ApiOptions | None:
    """`options`, with the form that a call which must be made has; no engine can be told two forms."""
    guide = guide_of(tools)
    if guide is None:
        return options
    if options is None:
        options = ApiOptions()
    if options.guide is None:
        options.guide = guide
        options.names["response_format"] = "tool_choice"
    else:
        other = options.names.get("response_format", "response_format")
        options.extras["tool_choice"] = Extra(True, f"an answer cannot have the form of `{other}`, too")
    return options


def parse_completion(body: bytes, limits: BodyLimits) -> ApiRequest:
    """The body of `POST /v1/completions`. Raises ApiError 400 or 413, nothing else."""
    raw = decode_object(body, limits)
    completion = typed(raw, CompletionBody)
    prompts = _prompts(completion.prompt)
    max_tokens = DEFAULT_COMPLETION_TOKENS if completion.max_tokens is None else completion.max_tokens
    plain = (
        raw.keys() <= _PLAIN_COMPLETION_KEYS
        and not completion.logprobs
        and max_tokens > 0
        and (completion.stream_options is None or _is_plain_stream(raw))
    )
    options = None if plain else read_options(raw, completion)
    n = _choices(completion, len(prompts), limits, 0 if options is None else options.best_of)
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
        sampling=_sampling(
            completion,
            max_tokens,
            completion.logprobs is not None or (options is not None and options.best_of > 0),
            completion.logprobs,
        ),
        stop=_stop(completion),
        logprobs=completion.logprobs is not None,
        top_logprobs=completion.logprobs,
        echo=bool(completion.echo),
        service_tier=completion.service_tier,
        user=completion.user,
        unsupported=(),
        unknown=tuple(_unknown(raw, completion, _COMPLETION_KEYS)),
        options=options,
    )


def _is_plain_stream(raw: dict[str, Any]) -> bool:
    return bool(raw["stream_options"].keys() <= {"include_usage"})


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


def _choices(body: Body, prompts: int, limits: BodyLimits, best_of: int = 0) -> int:
    """How many answers each prompt gets."""
    n = 1 if body.n is None else body.n
    most = limits.max_choices
    if n > most:
        raise bad_request(f"`n` must be an integer from 1 to {most} here.", "n")
    if best_of > most:
        raise bad_request(f"`best_of` must be an integer from 0 to {most} here.", "best_of")
    if (made := max(n, best_of) * prompts) > most:
        message = f"`prompt` asks for {made} answers; {most} are allowed here in one request."
        raise bad_request(f"{message} Send several requests.", "prompt")
    return n


def _sampling(body: Body, max_tokens: int | None, log_probs: bool, top_log_probs: int | None) -> Sampling:
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
        top_log_probs=top_log_probs or 0,
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


def _unknown(raw: dict[str, Any], body: Body, known: frozenset[str]) -> list[str]:
    unknown = [] if raw.keys() <= known else [key for key in raw if key not in known]
    if body.stream_options is not None:
        unknown += [f"stream_options.{key}" for key in raw["stream_options"] if key not in _STREAM_KEYS]
    return unknown
