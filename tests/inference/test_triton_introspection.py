"""What a real Triton serves, and how, is told by its metadata and configuration."""

from __future__ import annotations

import pytest

from inference.errors import (
    SchemaError,
    ServerUnreachableError,
)
from inference.introspection import introspect
from inference.schema import Schema
from model_registry.entities import ServerRef
from tests.inference.speaking import (
    OPTION_TARGETS,
    TARGETS,
)


@pytest.mark.parametrize(("target", "lane"), TARGETS.items())
async def test_a_model_is_recognised_whatever_its_name(triton: ServerRef, target: str, lane: str) -> None:
    schema = await introspect(triton, target, lane)
    assert (schema.lane, schema.target, schema.decoupled) == (lane, target, True)
    assert schema.text_mode == ("cumulative" if target in {"old_script", "words", "old_words"} else "delta")
    assert Schema.from_dict(schema.as_dict()) == schema


@pytest.mark.parametrize(("target", "bare"), [("text", "ids"), ("old_script", "old_ids"), ("ids", "ids")])
async def test_the_bare_model_is_preferred(triton: ServerRef, target: str, bare: str) -> None:
    schema = await introspect(triton, target)
    assert (schema.lane, schema.target) == ("tensorrt_llm", bare)
    assert schema.max_concurrency == 8
    assert schema.tokens_per_block == 32


async def test_the_servers_tokenizer_is_asked_for_its_bos(triton: ServerRef) -> None:
    assert (await introspect(triton, "text", "ensemble")).adds_special_tokens is True
    assert (await introspect(triton, "old_text", "ensemble")).adds_special_tokens is False


async def test_who_guides_is_told_by_the_engines_configuration(triton: ServerRef) -> None:
    """Of a text model by that of the engine behind it."""
    for target in OPTION_TARGETS:
        assert (await introspect(triton, target, TARGETS[target])).guided_decoding is True
    for target in ("fragile", "words"):
        assert (await introspect(triton, target)).guided_decoding is False


async def test_a_wrong_lane_is_named(triton: ServerRef) -> None:
    with pytest.raises(SchemaError, match=r"lane llmapi, but 'ids' .* is tensorrt_llm"):
        await introspect(triton, "ids", "llmapi")


async def test_an_unknown_schema_lists_what_is_missing(triton: ServerRef) -> None:
    with pytest.raises(SchemaError, match=r"Found inputs: QUERY BYTES.*lacks:.*") as caught:
        await introspect(triton, "before")
    assert "input " in str(caught.value)


async def test_an_absent_model_and_an_absent_server_are_unreachable(triton: ServerRef) -> None:
    with pytest.raises(ServerUnreachableError, match="nothing"):
        await introspect(triton, "nothing")
    with pytest.raises(ServerUnreachableError, match="is a model server running"):
        await introspect(ServerRef(http="http://127.0.0.1:9"), "m")
