"""ApiOptions: what few requests ask for; one that names none of these fields has none and pays nothing."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from gateway.api.errors import bad_request
from gateway.api.fields import Body, CompletionBody, ServerFields, typed
from gateway.api.guides import GUIDE_KEYS, read_guide
from gateway.api.parameters import UNCARRIED
from inference.request import Extra, Guide

SERVER_KEYS = frozenset(ServerFields.__struct_fields__)
OPTION_KEYS = SERVER_KEYS | GUIDE_KEYS | UNCARRIED.keys() | {"logit_bias", "best_of", "echo"}
_UNTOLD = "no engine behind it can be told so"
_OBFUSCATION = "stream_options.include_obfuscation"


class ApiOptions(Struct):
    """What few requests ask for, read and checked."""

    guide: Guide | None = None
    logit_bias: dict[int, float] = {}
    bad_words: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    include_stop: bool = False
    """A stop string stays in the answer."""
    skip_special_tokens: bool = True
    add_special_tokens: bool = True
    truncate_to: int | None = None
    """Tokens of the prompt's end that are kept; -1: as many as fit."""
    best_of: int = 0
    """Answers to generate for each prompt, of which the `n` best are given; 0: just `n`."""
    extras: dict[str, Extra] = {}
    names: dict[str, str] = {}


def read_options(raw: dict[str, Any], body: Body) -> ApiOptions | None:
    """The options of `raw`; None where they ask for nothing. Raises ApiError 400."""
    options = ApiOptions()
    fields = ServerFields() if SERVER_KEYS.isdisjoint(raw) else typed(_server_part(raw), ServerFields)
    _read_guide(options, raw)
    _read_tokens(options, fields)
    _read_text(options, fields, body)
    _read_extras(options, raw, body)
    options.logit_bias = _logit_bias(body.logit_bias)
    if isinstance(body, CompletionBody):
        _read_completion(options, body)
    return None if options == _NOTHING else options


_NOTHING = ApiOptions()


def _server_part(raw: dict[str, Any]) -> dict[str, Any]:
    return {name: raw[name] for name in SERVER_KEYS & raw.keys()}


def _read_guide(options: ApiOptions, raw: dict[str, Any]) -> None:
    asked = read_guide(raw)
    if asked is None:
        return
    name, guide = asked
    if guide is None:
        options.extras[name] = Extra(raw[name], _UNTOLD)
        return
    options.guide = guide
    if name != "response_format":
        options.names["response_format"] = name


def _read_tokens(options: ApiOptions, fields: ServerFields) -> None:
    options.bad_words = tuple(fields.bad_words or ())
    options.stop_token_ids = tuple(fields.stop_token_ids or ())
    options.ignore_eos = bool(fields.ignore_eos)
    if fields.truncate_prompt_tokens == 0:
        message = "`truncate_prompt_tokens` must be an integer of at least 1, or -1 for what fits."
        raise bad_request(message, "truncate_prompt_tokens")
    options.truncate_to = fields.truncate_prompt_tokens


def _read_text(options: ApiOptions, fields: ServerFields, body: Body) -> None:
    options.include_stop = bool(fields.include_stop_str_in_output) and bool(body.stop)
    options.skip_special_tokens = fields.skip_special_tokens is not False
    if isinstance(body, CompletionBody):
        options.add_special_tokens = fields.add_special_tokens is not False
    elif fields.add_special_tokens:
        why = "the chat template puts the special tokens in"
        options.extras["add_special_tokens"] = Extra(True, why)


def _read_extras(options: ApiOptions, raw: dict[str, Any], body: Body) -> None:
    for name in UNCARRIED.keys() & raw.keys():
        neutral, why = UNCARRIED[name]
        if raw[name] not in neutral:
            options.extras[name] = Extra(raw[name], why)
    if body.stream_options is not None and body.stream_options.include_obfuscation:
        options.extras[_OBFUSCATION] = Extra(True, "events are not padded here")


def _read_completion(options: ApiOptions, body: CompletionBody) -> None:
    n = body.n or 1
    best_of = body.best_of or n
    if best_of < n:
        raise bad_request("`best_of` must be at least `n`. Raise it.", "best_of")
    if best_of > n:
        if body.stream:
            raise bad_request("`best_of` cannot be streamed. Set `stream` to false.", "best_of")
        options.best_of = best_of
        if body.logprobs is None:
            options.names["logprobs"] = "best_of"
    if body.logprobs:
        options.names["top_logprobs"] = "logprobs"
    if body.echo and body.logprobs is not None:
        options.extras["echo"] = Extra(
            True, "with `logprobs` it takes those of the prompt, which no engine tells"
        )
    if body.max_tokens == 0:
        options.extras["max_tokens"] = Extra(0, "it generates at least one token")


def _logit_bias(asked: dict[str, float] | None) -> dict[int, float]:
    """By token id; biases of 0 ask for nothing."""
    biases: dict[int, float] = {}
    for key, bias in (asked or {}).items():
        if not (key.isascii() and key.isdigit() and len(key) <= 10):
            raise bad_request("`logit_bias` must be an object of token ids with a bias each.", "logit_bias")
        if bias:
            biases[int(key)] = bias
    return biases
