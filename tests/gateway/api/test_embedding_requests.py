"""The body of `/v1/embeddings`: what OpenAI's schema calls valid is read, the rest is refused by name."""

from __future__ import annotations

import json
from array import array
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api.embedding_requests import EmbeddingRequest, embeddings_answer, parse_embeddings
from gateway.api.errors import ApiError
from gateway.api.json_body import BodyLimits
from gateway.embeddings import shortened
from tests.openai_schema import is_valid, validate

LIMITS = BodyLimits()
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
IDS = st.lists(st.integers(-1, 2**31), max_size=3)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-1, 5),
    TEXT,
    IDS,
    st.lists(TEXT, max_size=3),
    st.lists(IDS, max_size=3),
)
INPUTS = st.one_of(VALUES, st.lists(st.one_of(TEXT, st.integers(0, 5)), max_size=3))


def parse(**fields: Any) -> EmbeddingRequest:
    return parse_embeddings(json.dumps({"model": "m", "input": "a", **fields}).encode(), LIMITS)


def parsed_or_refused(**fields: Any) -> EmbeddingRequest | ApiError:
    try:
        return parse(**fields)
    except ApiError as error:
        return error


@given(given=INPUTS, dimensions=VALUES, encoding=st.sampled_from(["float", "base64", "int", None, 3]))
def test_any_body_is_read_or_refused_with_its_field(given: Any, dimensions: Any, encoding: Any) -> None:
    """Never anything else; and what is read is what OpenAI calls valid."""
    fields = {"input": given, "dimensions": dimensions, "encoding_format": encoding}
    request = parsed_or_refused(**fields)
    if isinstance(request, ApiError):
        assert request.status == 400
        assert (request.param or "").partition("[")[0] in fields
        return
    assert all(request.inputs)
    body = {"model": "m", **{name: value for name, value in fields.items() if value is not None}}
    assert is_valid("CreateEmbeddingRequest", body)


def test_inputs_keep_their_order_and_their_place() -> None:
    assert parse(input="a").inputs == ["a"]
    assert parse(input="a").place(0) == "input"
    assert parse(input=[5, 6]).inputs == [[5, 6]]
    assert parse(input=["a", "b"]).place(1) == "input[1]"
    assert parse(input=[[5], [6, 7]]).inputs == [[5], [6, 7]]


def test_unknown_fields_are_kept_for_an_upstream_and_refused_for_triton() -> None:
    request = parse(truncate="END", user="me")
    assert request.unknown == ("truncate",)
    with pytest.raises(ApiError, match="truncate"):
        request.refuse_unserved()


@pytest.mark.parametrize("as_base64", [True, False])
def test_the_answer_is_openais(as_base64: bool) -> None:
    vectors = [array("f", [0.5, -1.0]).tobytes(), array("f", [0.0, 2.0]).tobytes()]
    answer = json.loads(embeddings_answer('na"me', vectors, 7, as_base64))
    assert answer["model"] == 'na"me'
    assert answer["usage"] == {"prompt_tokens": 7, "total_tokens": 7}
    assert [entry["embedding"] for entry in answer["data"]] == (
        ["AAAAPwAAgL8=", "AAAAAAAAAEA="] if as_base64 else [[0.5, -1.0], [0.0, 2.0]]
    )
    if not as_base64:
        validate("CreateEmbeddingResponse", answer)


def test_a_shortened_vector_has_length_one_again() -> None:
    whole = array("f", [3, 4, 12]).tobytes()
    assert array("f", shortened(whole, 2)).tolist() == pytest.approx([0.6, 0.8])
    assert shortened(whole, 3) == whole
