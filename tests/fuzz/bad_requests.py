"""Bad requests: valid ones with one to three things broken, and bytes that never were one.

Every request is answered by 4xx, or served where the mutation happened to hit nothing (then it asks for few
tokens): never 5xx. The same seed gives the same requests.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from itertools import chain
from random import Random
from typing import Any

from tests.fuzz.generate import TEXTS
from tests.fuzz.valid_requests import Kind, valid_requests

PATHS: Mapping[Kind, str] = {"chat": "/v1/chat/completions", "completion": "/v1/completions"}
CONTENT_TYPES = (
    "application/json",
    "application/json; charset=utf-8",
    "text/plain",
    "",
    "multipart/form-data; boundary=x",
)


@dataclass(frozen=True, slots=True)
class BadRequest:
    """One POST."""

    kind: Kind
    path: str
    headers: Mapping[str, str]
    body: bytes


class Verbatim(str):
    """Stands in a request where `text` is to appear in the JSON as it is."""

    __slots__ = ()


VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 17, 129, 2**31, 2**53 + 1, 2**63, -(2**63) - 1, 2**64, 10**30, 10**400,
    0.5, -0.0, 3.0, 1e308, -1e308, 1e-308, 2.0000001,
    "", "0", "true", "NaN", "\x00", "x" * 5000, *TEXTS,
    [], [[]], [None], [1, "a"], [[1, 2], "a"], [-1], ["", ""], ["a"] * 5, [{}],
    {}, {"": None}, {"type": "text"}, {"type": 5}, {"role": "user"},
    "\ud800", "\udfff\ud800", "ok\udc80",
)  # fmt: skip
VERBATIM = tuple(map(Verbatim, (
    "NaN", "-Infinity", "Infinity", "1e999", "-1e999",
    "1" * 5000, "0." + "1" * 5000, '"\\ud800"', '"\\udc00\\ud800"',
    '"\\u0000"', '"\\x"', '"\x01"', "01", "+1", ".5",
    "undefined", "'a'", "", "[" * 2000, "[" * 300 + "]" * 300,
    '{"a":' * 100 + "1" + "}" * 100, "1 2", "/* */ 1",
)))  # fmt: skip
NAMES = (
    "model", "messages", "prompt", "max_tokens", "max_completion_tokens", "n", "temperature", "top_p",
    "min_tokens", "repetition_penalty", "seed", "stop", "stream", "stream_options", "logprobs", "top_k",
    "tools", "tool_choice", "response_format", "logit_bias", "user", "service_tier", "metadata", "best_of",
    "echo", "suffix", "temprature", "maxTokens", "__proto__", "", "model\x00", "žluť", "x" * 3000, "a.b", "$",
    "messages[0]", "`", "\ud800", "top_logprobs", "guided_json", "guided_choice", "structured_outputs",
    "regex", "stop_token_ids", "bad_words", "min_p", "truncate_prompt_tokens", "ignore_eos",
    "include_stop_str_in_output", "add_special_tokens",
)  # fmt: skip


def bad_requests(seed: int, model: str = "demo") -> Iterator[BadRequest]:
    """Endless."""
    random = Random(seed)
    drawn: dict[Kind, Iterator[dict[str, Any]]] = {
        "chat": valid_requests("chat", seed, model),
        "completion": valid_requests("completion", seed + 1, model),
    }
    while True:
        kind: Kind = random.choice(("chat", "completion"))
        request = next(drawn[kind])
        if request.get("max_completion_tokens") is None:
            request["max_tokens"] = request.get("max_tokens") or 2
        for _ in range(random.randint(1, 3)):
            random.choice(MUTATIONS)(request, random)
        body = bytes_of(request)
        if random.random() < 0.2:
            body = random.choice(BYTE_MUTATIONS)(body, random)
        yield BadRequest(kind, PATHS[kind], {"content-type": random.choice(CONTENT_TYPES)}, body)


def bytes_of(request: Any) -> bytes:
    """JSON, with its literals as they are and raw surrogates kept as escapes."""
    text = json.dumps(request, default=str, skipkeys=True)
    for literal in _literals(request):
        text = text.replace(json.dumps(str(literal)), str(literal), 1)
    return text.encode("utf-8", "surrogatepass")


def _literals(value: Any) -> Iterator[Verbatim]:
    if isinstance(value, Verbatim):
        yield value
    elif isinstance(value, dict):
        yield from chain.from_iterable(map(_literals, value.values()))
    elif isinstance(value, list):
        yield from chain.from_iterable(map(_literals, value))


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key or index) of a request."""
    if isinstance(value, dict):
        own: list[tuple[Any, Any]] = [(value, key) for key in value]
        return own + list(chain.from_iterable(map(_places, value.values())))
    if isinstance(value, list):
        own = [(value, i) for i in range(len(value))]
        return own + list(chain.from_iterable(map(_places, value)))
    return []


def _value(random: Random) -> Any:
    return random.choice(VERBATIM) if random.random() < 0.1 else deepcopy(random.choice(VALUES))


def _replace(request: dict[str, Any], random: Random) -> None:
    if places := _places(request):
        container, key = random.choice(places)
        container[key] = _value(random)


def _replace_top(request: dict[str, Any], random: Random) -> None:
    if request:
        request[random.choice(list(request))] = _value(random)


def _remove(request: dict[str, Any], random: Random) -> None:
    if places := _places(request):
        container, key = random.choice(places)
        del container[key]


def _add(request: dict[str, Any], random: Random) -> None:
    objects = [request, *(c[k] for c, k in _places(request) if isinstance(c[k], dict))]
    random.choice(objects)[random.choice(NAMES)] = _value(random)


def _add_top(request: dict[str, Any], random: Random) -> None:
    request[random.choice(NAMES)] = _value(random)


def _bury(request: dict[str, Any], random: Random) -> None:
    """Wrap a value in arrays or objects."""
    if places := _places(request):
        container, key = random.choice(places)
        buried = container[key]
        for _ in range(random.choice((1, 2, 70, 200))):
            buried = [buried] if random.random() < 0.5 else {"a": buried}
        container[key] = buried


MUTATIONS: tuple[Callable[[dict[str, Any], Random], None], ...] = (
    _replace, _replace_top, _remove, _add, _add_top, _bury,
)  # fmt: skip


def _truncate(body: bytes, random: Random) -> bytes:
    return body[: random.randrange(len(body) + 1)]


def _flip(body: bytes, random: Random) -> bytes:
    changed = bytearray(body)
    for _ in range(random.randint(1, 8)):
        changed[random.randrange(len(changed))] = random.randrange(256)
    return bytes(changed)


def _noise(body: bytes, random: Random) -> bytes:
    return random.randbytes(random.choice((0, 1, 2, 16, 400)))


def _repeat_key(body: bytes, random: Random) -> bytes:
    return body[:-1] + b',"model":5,"model":null}'


def _other_encoding(body: bytes, random: Random) -> bytes:
    return body.decode("utf-8", "replace").encode(
        random.choice(("utf-16", "utf-32-le", "utf-8-sig", "utf-7"))
    )


def _surround(body: bytes, random: Random) -> bytes:
    junk = (b"\x00", b"\xff", b" ", b"\n", b"]", b"}", b",", b"data: ", b"\xef\xbb\xbf", b"[[[[[", b"{}")
    return random.choice(junk) + body + random.choice(junk)


def _not_an_object(body: bytes, random: Random) -> bytes:
    wholes = (
        b"[]",
        b"null",
        b"1",
        b'"a"',
        b"true",
        b"",
        b"   ",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"[" + body + b"]",
    )
    return random.choice(wholes)


BYTE_MUTATIONS: tuple[Callable[[bytes, Random], bytes], ...] = (
    _truncate, _flip, _noise, _repeat_key, _other_encoding, _surround, _not_an_object,
)  # fmt: skip
