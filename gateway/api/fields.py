"""Fields: what OpenAI's two request bodies may hold, as types, and what to say when a value does not fit.

`null` means the default everywhere, as at OpenAI. Numbers are taken strictly: `3.0` is no integer and `"3"`
no number. `top_k`, `min_tokens`, `repetition_penalty`, `chat_template_kwargs`, `include_reasoning`, the
`reasoning_content` of messages and `ServerFields` are the extras of vLLM, trtllm-serve and SGLang, under the
names they use.
Sources: openai-openapi, `CreateChatCompletionRequest` and `CreateCompletionRequest`; the servers' protocols.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from gateway.api.errors import ApiError, bad_request

Role = Literal["system", "developer", "user", "assistant", "tool", "function"]
ServiceTier = Literal["auto", "default", "flex", "scale", "priority", "fast"]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Int32 = Annotated[int, Meta(ge=0, le=2**31 - 1)]


class ContentPart(Struct, gc=False):
    """One part of a message's content; what is not text is known by its `type` only."""

    type: str
    text: str | None = None
    refusal: str | None = None


class Message(Struct, gc=False):
    """One message of a conversation, of any role."""

    role: Role
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_call_id: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    function_call: dict[str, Any] | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    audio: dict[str, Any] | None = None
    annotations: list[dict[str, Any]] | None = None


class StreamOptions(Struct, gc=False):
    """What a stream carries besides the answer."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class Body(Struct, kw_only=True, gc=False):
    """What both bodies share."""

    model: Annotated[str, Meta(min_length=1, max_length=256)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=-1, le=2**31 - 1)] | None = None
    min_tokens: Int32 | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Meta(ge=0.01, le=10)] | None = None
    stop: str | Annotated[list[str], Meta(max_length=4)] | None = None
    logit_bias: dict[str, Annotated[float, Meta(ge=-100, le=100)]] | None = None
    response_format: dict[str, Any] | None = None
    service_tier: ServiceTier | None = None
    user: str | None = None


class ChatBody(Body, kw_only=True):
    """The body of `POST /v1/chat/completions`."""

    messages: Annotated[list[Message], Meta(min_length=1)]
    max_tokens: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    max_completion_tokens: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    functions: list[dict[str, Any]] | None = None
    function_call: str | dict[str, Any] | None = None
    modalities: list[str] | None = None
    audio: dict[str, Any] | None = None
    prediction: dict[str, Any] | None = None
    web_search_options: dict[str, Any] | None = None
    moderation: dict[str, Any] | None = None
    reasoning_effort: str | None = None
    include_reasoning: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    store: bool | None = None
    metadata: dict[str, str] | None = None
    safety_identifier: Annotated[str, Meta(max_length=64)] | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    prompt_cache_retention: Literal["in_memory", "24h"] | None = None


class CompletionBody(Body, kw_only=True):
    """The body of `POST /v1/completions`."""

    prompt: str | list[str | int | list[int]] | None
    max_tokens: Int32 | None = None
    logprobs: Annotated[int, Meta(ge=0, le=5)] | None = None
    echo: bool | None = None
    suffix: str | None = None
    best_of: Annotated[int, Meta(ge=0, le=20)] | None = None


class ServerFields(Struct, kw_only=True):
    """What vLLM, trtllm-serve and SGLang know beyond OpenAI; read only where one of these names is there."""

    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    length_penalty: float | None = None
    early_stopping: bool | str | None = None
    use_beam_search: bool | None = None
    ignore_eos: bool | None = None
    stop_token_ids: Annotated[list[Int32], Meta(max_length=128)] | None = None
    include_stop_str_in_output: bool | None = None
    skip_special_tokens: bool | None = None
    spaces_between_special_tokens: bool | None = None
    bad_words: (
        Annotated[list[Annotated[str, Meta(min_length=1, max_length=1000)]], Meta(max_length=128)] | None
    ) = None
    allowed_token_ids: list[Int32] | None = None
    truncate_prompt_tokens: Annotated[int, Meta(ge=-1, le=2**31 - 1)] | None = None
    add_special_tokens: bool | None = None
    prompt_logprobs: int | None = None
    detokenize: bool | None = None
    return_token_ids: bool | None = None
    return_tokens_as_token_ids: bool | None = None
    priority: int | None = None
    cache_salt: str | None = None
    kv_transfer_params: dict[str, Any] | None = None
    disaggregated_params: dict[str, Any] | None = None
    guided_json: dict[str, Any] | str | None = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = None
    structured_outputs: dict[str, Any] | None = None
    regex: str | None = None
    ebnf: str | None = None


_POSITIVE = "an integer of at least 1"
_STRING = "a string"
_BOOLEAN = "true or false"
_OBJECT = "an object"
_OBJECTS = "an array of objects"
_SCHEMA = "a JSON schema: an object"
_AN_ID = "a token id: an integer of at least 0"
_PENALTY = "a number from -2 to 2"

FITS: Mapping[str, str] = {
    "model": "a model's name of 1 to 256 characters; GET /v1/models lists them",
    "stream": _BOOLEAN,
    "stream_options": 'an object such as {"include_usage": true}',
    "stream_options.include_usage": _BOOLEAN,
    "stream_options.include_obfuscation": _BOOLEAN,
    "n": "an integer from 1 to 128",
    "temperature": "a number from 0 to 2",
    "top_p": "a number above 0 and up to 1",
    "top_k": "an integer of at least 1, or -1 for all tokens",
    "min_tokens": "an integer of at least 0",
    "seed": "an integer of 64 bits with sign",
    "presence_penalty": _PENALTY,
    "frequency_penalty": _PENALTY,
    "repetition_penalty": "a number from 0.01 to 10",
    "stop": "a string or an array of up to 4 strings",
    "stop[]": _STRING,
    "logit_bias": "an object of token ids with a bias from -100 to 100 each",
    "service_tier": "one of auto, default, flex, scale, priority, fast",
    "user": _STRING,
    "messages": "an array of at least one message",
    "messages[]": "an object with role and content",
    "messages[].role": "one of system, developer, user, assistant, tool, function",
    "messages[].content": "a string or an array of content parts",
    "messages[].content[]": 'an object such as {"type": "text", "text": "..."}',
    "messages[].content[].type": "a string such as text",
    "messages[].content[].text": _STRING,
    "messages[].content[].refusal": _STRING,
    "messages[].name": _STRING,
    "messages[].tool_call_id": "a string: the id of the tool call that is answered",
    "messages[].tool_calls": _OBJECTS,
    "messages[].tool_calls[]": _OBJECT,
    "messages[].function_call": _OBJECT,
    "messages[].reasoning_content": _STRING,
    "messages[].refusal": _STRING,
    "messages[].audio": _OBJECT,
    "messages[].annotations": _OBJECTS,
    "messages[].annotations[]": _OBJECT,
    "max_tokens": _POSITIVE,
    "max_completion_tokens": _POSITIVE,
    "logprobs": "true or false for chat, an integer from 0 to 5 for completions",
    "top_logprobs": "an integer from 0 to 20",
    "tools": _OBJECTS,
    "tools[]": _OBJECT,
    "tool_choice": "none, auto, required or an object that names a tool",
    "parallel_tool_calls": _BOOLEAN,
    "functions": _OBJECTS,
    "functions[]": _OBJECT,
    "function_call": "none, auto or an object that names a function",
    "response_format": 'an object such as {"type": "text"}',
    "modalities": 'an array such as ["text"]',
    "modalities[]": _STRING,
    "audio": _OBJECT,
    "prediction": _OBJECT,
    "web_search_options": _OBJECT,
    "moderation": _OBJECT,
    "reasoning_effort": _STRING,
    "include_reasoning": _BOOLEAN,
    "chat_template_kwargs": "an object of names that the chat template reads",
    "verbosity": "one of low, medium, high",
    "store": _BOOLEAN,
    "metadata": "an object whose values are strings",
    "safety_identifier": "a string of up to 64 characters",
    "prompt_cache_key": _STRING,
    "prompt_cache_options": _OBJECT,
    "prompt_cache_retention": "one of in_memory, 24h",
    "prompt": "a string, an array of strings, an array of token ids or an array of such arrays",
    "prompt[]": "a string, a token id or an array of token ids",
    "prompt[][]": _AN_ID,
    "echo": _BOOLEAN,
    "suffix": _STRING,
    "best_of": "an integer from 0 to 20",
    "response_format.type": "one of text, json_object, json_schema, regex, ebnf, structural_tag",
    "response_format.json_schema": 'an object such as {"name": "...", "schema": {...}}',
    "response_format.json_schema.name": "a name of 1 to 64 letters, digits, underscores and dashes",
    "response_format.json_schema.description": _STRING,
    "response_format.json_schema.schema": _SCHEMA,
    "response_format.json_schema.strict": _BOOLEAN,
    "response_format.schema": _SCHEMA,
    "response_format.regex": _STRING,
    "response_format.ebnf": _STRING,
    "structured_outputs.json": _SCHEMA,
    "structured_outputs.regex": _STRING,
    "structured_outputs.choice": "an array of strings",
    "structured_outputs.choice[]": _STRING,
    "structured_outputs.grammar": _STRING,
    "structured_outputs.json_object": _BOOLEAN,
    "min_p": "a number from 0 to 1",
    "length_penalty": "a number",
    "early_stopping": "true, false or a string",
    "use_beam_search": _BOOLEAN,
    "ignore_eos": _BOOLEAN,
    "stop_token_ids": "an array of up to 128 token ids",
    "stop_token_ids[]": _AN_ID,
    "include_stop_str_in_output": _BOOLEAN,
    "skip_special_tokens": _BOOLEAN,
    "spaces_between_special_tokens": _BOOLEAN,
    "bad_words": "an array of up to 128 strings",
    "bad_words[]": "a string of 1 to 1000 characters",
    "allowed_token_ids": "an array of token ids",
    "allowed_token_ids[]": _AN_ID,
    "truncate_prompt_tokens": "an integer of at least 1, or -1 for what fits",
    "add_special_tokens": _BOOLEAN,
    "prompt_logprobs": "an integer",
    "detokenize": _BOOLEAN,
    "return_token_ids": _BOOLEAN,
    "return_tokens_as_token_ids": _BOOLEAN,
    "priority": "an integer",
    "cache_salt": _STRING,
    "kv_transfer_params": _OBJECT,
    "disaggregated_params": _OBJECT,
    "guided_json": _SCHEMA,
    "guided_regex": _STRING,
    "guided_choice": "an array of strings",
    "guided_choice[]": _STRING,
    "guided_grammar": _STRING,
    "structured_outputs": _OBJECT,
    "regex": _STRING,
    "ebnf": _STRING,
}
"""What fits a field, by its path without indexes."""

_AT = re.compile(r" - at .*?`\$(?P<path>[^`]*)`$")
_GOT = re.compile(r", got `(?P<kind>[a-z]+)`")
_MISSING = re.compile(r"^Object missing required field `(?P<field>[^`]+)`")
_KINDS = {
    "int": "an integer",
    "float": "a decimal number",
    "str": "a string",
    "bool": "a boolean",
    "array": "an array",
    "object": "an object",
    "null": "null",
}

AnyFields = TypeVar("AnyFields", bound=Struct)


def typed(
    raw: dict[str, Any], fields: type[AnyFields], place: str = "", fits: Mapping[str, str] = FITS
) -> AnyFields:
    """`raw`, which stands at `place`, as the fields it should be.

    Raises ApiError 400 that names the field and what `fits` says of it.
    """
    try:
        return msgspec.convert(raw, fields)
    except msgspec.ValidationError as error:
        raise _misfit(str(error), place, fits) from None


def path_of(param: str) -> str:
    """`param` without its indexes: the key of `FITS`."""
    return re.sub(r"\[\d+\]", "[]", param)


def _misfit(complaint: str, place: str, fits: Mapping[str, str]) -> ApiError:
    at = _AT.search(complaint)
    param = f"{place}{at['path']}" if at else place
    param = param.removeprefix(".").replace("[...]", "")
    if (missing := _MISSING.match(complaint)) is not None:
        param = f"{param}.{missing['field']}" if param else missing["field"]
        message = f"`{param}` is missing. Give {fits[path_of(param)]}."
        return bad_request(message, param, "missing_required_parameter")
    wanted = fits[path_of(param)]
    if (got := _GOT.search(complaint)) is not None:
        return bad_request(f"`{param}` must be {wanted}, not {_KINDS[got['kind']]}.", param, "invalid_type")
    return bad_request(f"`{param}` must be {wanted}.", param, "invalid_value")
