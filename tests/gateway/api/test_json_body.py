"""The bytes of a body: what is refused, and how the mistake is named."""

from __future__ import annotations

import json

import pytest

from gateway.api.errors import ApiError
from gateway.api.json_body import BodyLimits, decode_object

LIMITS = BodyLimits()


def refusal(body: bytes, limits: BodyLimits = LIMITS) -> ApiError:
    with pytest.raises(ApiError) as caught:
        decode_object(body, limits)
    return caught.value


def test_an_object_is_decoded() -> None:
    assert decode_object('{"a": [1, 2.5, "ž", null, true]}'.encode(), LIMITS) == {
        "a": [1, 2.5, "ž", None, True]
    }


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "The body is empty"),
        (b" \n\t", "The body is empty"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        (b'{"a"', "ends too early, after 4 bytes"),
        (b'{"a" 1}', "unexpected character at byte 5"),
        (b'{"a": 1}x', "unexpected character at byte 8"),
        (b'{"a": 01}', "unexpected character at byte 7"),
        (b'{"a": \x00}', "unexpected character at byte 6"),
        (b"\xff\xfe{\x00", "unexpected character at byte 0"),
        (b"[]", "must be a JSON object, not an array"),
        (b"null", "must be a JSON object, not null"),
        (b"3", "must be a JSON object, not an integer"),
        (b'"x"', "must be a JSON object, not a string"),
    ],
)
def test_what_is_no_json_object_is_refused_with_its_place(body: bytes, says: str) -> None:
    error = refusal(body)
    assert (error.status, error.code, error.param) == (400, "invalid_json", None)
    assert says in str(error)


@pytest.mark.parametrize(
    ("body", "param", "says"),
    [
        (b'{"temperature": NaN}', "temperature", "NaN"),
        (b'{"a": [0, -Infinity]}', "a[1]", "-Infinity"),
        (b'{"a": {"b": 1e999}}', "a.b", "out of range"),
        (b'{"a": -1e999}', "a", "out of range"),
        (b'{"n": 1' + b"0" * 5000 + b"}", "n", "out of range"),
        (rb'{"messages": [{"content": "\ud800"}]}', "messages[0].content", r"lone surrogate \ud800"),
        (rb'{"messages": [{"content": "ok \udfff\ud800"}]}', "messages[0].content", r"lone surrogate \udfff"),
        (b'{"user": "\xff"}', "user", "not UTF-8"),
        (b'{"user": "\xed\xa0\x80"}', "user", "not UTF-8"),
        (rb'{"stop": ["a\u0000"]}', "stop[0]", r"null character \u0000"),
        (rb'{"a": 1, "\ud800": 2}', None, "lone surrogate"),
    ],
)
def test_a_forbidden_value_is_refused_with_its_field(body: bytes, param: str | None, says: str) -> None:
    error = refusal(body)
    assert (error.status, error.code, error.param) == (400, "invalid_json", param)
    assert says in str(error)


@pytest.mark.parametrize("text", ["\\u0000", "\\\\u0000", "a\\", "🧵 \ud7ff\ue000"])
def test_text_that_only_looks_forbidden_is_taken(text: str) -> None:
    assert decode_object(json.dumps({"a": text}).encode(), LIMITS) == {"a": text}


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"a":'])
@pytest.mark.parametrize("levels", [65, 500, 100_000])
def test_deep_nesting_is_refused_without_recursion(opening: bytes, levels: int) -> None:
    """Complete or cut off, inside an object or before any."""
    assert refusal(b'{"a":' + opening * levels).status == 400
    closing = b"".join(
        {b"[": b"]", b"{": b"}"}[opening[i : i + 1]] for i in range(len(opening)) if opening[i] in b"[{"
    )
    error = refusal(b'{"a":' + opening * levels + b"1" + closing[::-1] * levels + b"}")
    assert "deeper than the 64 levels" in str(error)


def test_depth_counts_levels_not_brackets() -> None:
    body = json.dumps({"a": [[{"b": "[[[{{{"}] for _ in range(500)]}).encode()
    assert decode_object(body, BodyLimits(max_depth=8))["a"][499] == [{"b": "[[[{{{"}]
    deepest = b'{"a":' + b"[" * 63 + b"]" * 63 + b"}"
    assert decode_object(deepest, LIMITS)
    assert refusal(b'{"a":' + deepest + b"}").code == "invalid_json"


def test_too_many_arrays_and_objects_are_refused() -> None:
    """Brackets within text are none."""
    limits = BodyLimits(max_containers=100, max_depth=8)
    assert decode_object(json.dumps({"a": [[]] * 98, "b": "[" * 500}).encode(), limits)
    assert "more than the 100 arrays and objects" in str(
        refusal(json.dumps({"a": [[]] * 99}).encode(), limits)
    )


def test_a_long_body_is_413() -> None:
    limits = BodyLimits.model_construct(max_body_bytes=10)
    assert decode_object(b'{"a":1234}', limits) == {"a": 1234}
    error = refusal(b'{"a":12345}', limits)
    assert (error.status, error.code) == (413, "request_too_large")


def test_a_long_refused_body_is_not_read_again() -> None:
    """The place is told, not the field: finding it would take longer than decoding ever does."""
    for value, says in ((b"NaN}", "at byte 300015"), (b"1e999}", "out of range"), (b"1", "ends too early")):
        error = refusal(b'{"a": "' + b"x" * 300_000 + b'", "b": ' + value)
        assert (error.param, error.code) == (None, "invalid_json")
        assert says in str(error)


def test_of_a_repeated_key_the_last_value_counts() -> None:
    assert decode_object(b'{"model": "a", "model": "b"}', LIMITS) == {"model": "b"}


def test_a_hostile_path_is_cut_and_printable() -> None:
    for key in ("ž" * 5000, "\u202e\n`", "a.b[0]"):
        error = refusal(json.dumps({key: {key: float("nan")}}).encode())
        assert error.param is not None
        assert error.param.isascii()
        assert len(str(error)) < 2000
