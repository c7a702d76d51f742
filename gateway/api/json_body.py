"""JsonBody: the bytes of a request body become one JSON object, or an ApiError that names the place.

The fast path is one `msgspec` decode. Only a body that it refuses is read again, by the lenient decoder of
the standard library, to tell which field holds the literal, number or string that JSON or Unicode forbids.

Of a key that is given twice the last value counts, as at OpenAI; what is sent on to an upstream is encoded
anew from what was checked, so both sides see the same value.
"""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from pydantic import BaseModel, ConfigDict, Field

from gateway.api.errors import ApiError, bad_request, request_too_large


class BodyLimits(BaseModel):
    """How big a request may be."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_body_bytes: Annotated[int, Field(ge=1024)] = 8 * 1024 * 1024
    max_depth: Annotated[int, Field(ge=8, le=500)] = 64
    """Arrays and objects inside each other."""
    max_containers: Annotated[int, Field(gt=0)] = 50_000
    """Arrays and objects in all: what reading the rest of a body costs grows with them, not with text."""
    max_choices: Annotated[int, Field(ge=1, le=128)] = 16
    """Answers per request: `n`, times the number of prompts."""


@dataclass(frozen=True, slots=True)
class Offence:
    """A value that no JSON text may hold."""

    why: str


_decode = msgspec.json.Decoder().decode
_SURROGATE = re.compile("[\ud800-\udfff]")
_PLACE = re.compile(r"\(byte (\d+)\)")
_NULL_ESCAPE = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_MAX_DIGITS = 400
_MAX_PATH_CHARS = 200
_MAX_EXPLAINED_BYTES = 64 * 1024
"""Reading a refused body again is slow; of a longer one only the place is told."""
_LARGE_BYTES = 256 * 1024
_UTF8_BOM = b"\xef\xbb\xbf"


def decode_object(body: bytes, limits: BodyLimits) -> dict[str, Any]:
    """The object that `body` holds. Raises ApiError 400 or 413."""
    if len(body) > limits.max_body_bytes:
        raise request_too_large(limits.max_body_bytes)
    try:
        decoded = _decode(body) if len(body) < _LARGE_BYTES else _decode_large(body)
    except RecursionError:
        raise _too_deep(limits) from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _explain(body, error, limits) from None
    if type(decoded) is not dict:
        raise bad_request(f"The body must be a JSON object, not {kind_of(decoded)}.", code="invalid_json")
    if body.count(b"{") + body.count(b"[") > limits.max_depth:
        _measure(decoded, limits)
    if body.find(b"\\") >= 0:  # found in a sixth of the time that the whole escape takes
        _refuse_null(body, limits)
    return decoded


def _refuse_null(body: bytes, limits: BodyLimits) -> None:
    if body.find(b"\\u0000") >= 0 and (null := _NULL_ESCAPE.search(body)) is not None:
        raise _explain(body, ValueError(f"(byte {null.end()})"), limits)


def _decode_large(body: bytes) -> Any:
    """Decode without garbage collections in between: there is no garbage yet, only ever more to search."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        return _decode(body)
    finally:
        if collecting:
            gc.enable()


def kind_of(value: object) -> str:
    """What JSON calls the value, with an article."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int():
            return "an integer"
        case float():
            return "a decimal number"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"


def _explain(body: bytes, error: Exception, limits: BodyLimits) -> ApiError:
    """Why the fast decoder refused the body: the field at fault, else the place."""
    if not body.strip():
        return bad_request("The body is empty. Send a JSON object.", code="invalid_json")
    if body.startswith(_UTF8_BOM):
        message = "The body begins with a byte order mark. Send UTF-8 without one."
        return bad_request(message, code="invalid_json")
    if len(body) > _MAX_EXPLAINED_BYTES:
        return _malformed(body, error)
    try:
        found = _first_offence(_decode_leniently(body))
    except RecursionError:
        return _too_deep(limits)
    except ValueError:
        found = None
    return _forbidden(*found) if found is not None else _malformed(body, error)


def _decode_leniently(body: bytes) -> Any:
    """Forbidden values stay where they are, as an `Offence` or a lone surrogate."""
    return json.loads(
        body.decode("utf-8", "surrogateescape"),
        parse_constant=lambda literal: Offence(f"{literal}, which is no JSON number"),
        parse_float=_float,
        parse_int=_int,
    )


def _float(digits: str) -> float | Offence:
    number = float(digits)
    return number if abs(number) != float("inf") else Offence("a number out of range")


def _int(digits: str) -> int | Offence:
    return int(digits) if len(digits) <= _MAX_DIGITS else Offence("a number out of range")


def _first_offence(tree: Any) -> tuple[str, str] | None:
    """(path, why) of the first value that no request may hold."""
    for path, value in _leaves(tree):
        if isinstance(value, Offence):
            return path, value.why
        if isinstance(value, str) and (why := _bad_text(value)) is not None:
            return path, why
    return None


def _leaves(tree: Any) -> Iterator[tuple[str, Any]]:
    """Every scalar with its path, and every key as a scalar at its object's path; long paths are cut."""
    waiting: list[tuple[str, Any]] = [("", tree)]
    while waiting:
        path, value = waiting.pop()
        path = path[:_MAX_PATH_CHARS]
        if isinstance(value, dict):
            for key, item in reversed(value.items()):
                waiting.append((f"{path}.{key}" if path else key, item))
                waiting.append((path, key))
        elif isinstance(value, list):
            waiting.extend((f"{path}[{i}]", value[i]) for i in range(len(value) - 1, -1, -1))
        else:
            yield path, value


def _bad_text(text: str) -> str | None:
    if (surrogate := _SURROGATE.search(text)) is not None:
        code = ord(surrogate[0])
        if 0xDC80 <= code <= 0xDCFF:
            return "text that is not UTF-8, or a lone surrogate"
        return f"the lone surrogate \\u{code:04x}, which is half a character"
    return "the null character \\u0000" if "\x00" in text else None


def _forbidden(path: str, why: str) -> ApiError:
    param = path.encode("ascii", "backslashreplace").decode() or None
    place = f"`{param}`" if param else "The body"
    return bad_request(f"{place} holds {why}. Remove or replace it.", param, "invalid_json")


def _malformed(body: bytes, error: Exception) -> ApiError:
    if isinstance(error, UnicodeDecodeError):
        message = "The body is not UTF-8. Send JSON in UTF-8."
    elif (place := _PLACE.search(str(error))) is not None:
        at = int(place[1]) - ("trailing" in str(error))  # msgspec tells the byte after the first one too many
        message = f"The body is not valid JSON: unexpected character at byte {at}."
    elif "out of range" in str(error):
        message = "The body holds a number out of range. Remove or replace it."
    else:
        message = f"The body is not valid JSON: it ends too early, after {len(body)} bytes."
    return bad_request(message, code="invalid_json")


def _too_deep(limits: BodyLimits) -> ApiError:
    message = f"The body nests arrays and objects deeper than the {limits.max_depth} levels allowed here."
    return bad_request(message, code="invalid_json")


def _measure(tree: dict[str, Any], limits: BodyLimits) -> None:
    """Raise ApiError 400 when containers are too many or too deep inside each other."""
    level: list[Any] = [tree]
    found = 0
    for _ in range(limits.max_depth):
        found += len(level)
        if found > limits.max_containers:
            message = f"The body has more than the {limits.max_containers} arrays and objects allowed here."
            raise bad_request(message, code="invalid_json")
        level = [
            child
            for node in level
            for child in (node.values() if type(node) is dict else node)
            if type(child) is dict or type(child) is list
        ]
        if not level:
            return
    raise _too_deep(limits)
