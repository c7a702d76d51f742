"""Whatever bytes come: a parsed request, or a 4xx that OpenAI's clients understand; never anything else."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.api.errors import ApiError, encode_error
from gateway.api.requests import ApiRequest, BodyLimits, parse_chat, parse_completion
from tests.fuzz.bad_requests import bad_requests
from tests.fuzz.valid_requests import SCHEMAS, Kind, valid_requests
from tests.openai_schema import is_valid, validate

PARSE = {"chat": parse_chat, "completion": parse_completion}
LIMITS = BodyLimits()
NEEDED: dict[Kind, dict[str, Any]] = {
    "chat": {"messages": [{"role": "user", "content": "a"}]},
    "completion": {"prompt": "a"},
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def outcome(kind: Kind, body: bytes) -> str:
    """The code of the refusal, or `served`; what else is raised fails the test."""
    refused = refusal(kind, body)
    if refused is None:
        return "served"
    assert 400 <= refused.status < 500
    answer = encode_error(refused)
    assert len(answer) < 2000
    assert is_valid("ErrorResponse", json.loads(answer))
    return refused.code


def refusal(kind: Kind, body: bytes) -> ApiError | None:
    try:
        request = PARSE[kind](body, LIMITS)
        json.dumps(request.raw)
        request.refuse_unserved()
    except ApiError as error:
        return error
    return None


def test_bad_requests_are_parsed_or_refused() -> None:
    """And the generator reaches every kind of refusal, so that it does not pass by being dull.

    A running gateway gets more of them (`tests/stack/test_bad_requests.py`).
    """
    outcomes = Counter(outcome(bad.kind, bad.body) for bad in islice(bad_requests(seed=20_260_821), 4_000))
    expected = {
        "invalid_json",
        "invalid_type",
        "invalid_value",
        "missing_required_parameter",
        "unknown_parameter",
        "unsupported_parameter",
    }
    assert outcomes.keys() == expected | {"served"}
    assert min(outcomes.values()) > 40
    assert outcomes["served"] < 400


def test_the_same_seed_gives_the_same_bad_requests() -> None:
    assert list(islice(bad_requests(3), 50)) == list(islice(bad_requests(3), 50))
    assert list(islice(bad_requests(3), 50)) != list(islice(bad_requests(4), 50))


@given(body=st.binary(max_size=200))
def test_any_bytes(body: bytes) -> None:
    assert outcome("chat", body) != "served"


@settings(max_examples=300)
@given(
    name=st.sampled_from(["messages", "prompt", "stop", "n", "temperature", "tools", "metadata"]), value=JSON
)
def test_any_value_of_any_field(name: str, value: Any) -> None:
    body = {"model": "m", name: value}
    for kind, needed in NEEDED.items():
        outcome(kind, json.dumps(needed | body).encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize("kind", ["chat", "completion"])
def test_every_request_valid_at_openai_is_taken_as_it_is(kind: Kind) -> None:
    for sent in islice(valid_requests(kind, seed=7), 1000):
        validate(SCHEMAS[kind], sent)
        got = PARSE[kind](json.dumps(sent).encode(), LIMITS)
        assert got.raw == sent
        assert got.unknown == ()
        assert_same(sent, got)


def assert_same(sent: dict[str, Any], got: ApiRequest) -> None:
    """What the client meant is what was read."""
    assert got.model == sent["model"]
    assert got.stream == bool(sent.get("stream"))
    assert got.n == (sent.get("n") or 1)
    assert got.include_usage == bool((sent.get("stream_options") or {}).get("include_usage"))
    for name in ("temperature", "top_p", "seed", "presence_penalty", "frequency_penalty"):
        assert getattr(got.sampling, name) == sent.get(name)
    stop = sent.get("stop") or ()
    assert got.stop == ((stop,) if isinstance(stop, str) else tuple(stop))
    limit = sent.get("max_completion_tokens") or sent.get("max_tokens")
    assert got.max_tokens == (limit or (16 if got.kind == "completion" else None))
    if got.messages is not None:
        roles = [message["role"].replace("developer", "system") for message in sent["messages"]]
        assert [message["role"] for message in got.messages] == roles
        taken = [
            (a["content"], b.get("content")) for a, b in zip(got.messages, sent["messages"], strict=True)
        ]
        assert all(ours == theirs for ours, theirs in taken if isinstance(theirs, str))
