"""Guided decoding in a real Triton: bare in both dialects, ensemble and BLS."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import jsonschema
import pytest

from emulator.engine.tokenizer import EngineTokenizer
from tests.emulator.triton.server import Event, Server, bare_body, events, tokens_of

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "count": {"type": "integer"},
        "flags": {"type": "array", "items": {"type": "boolean"}},
    },
    "required": ["name", "count", "flags"],
}
TEXT_MODELS = ("ensemble", "tensorrt_llm_bls", "old_ensemble", "old_bls")
BARE_MODELS = ("tensorrt_llm", "old")


def guided(kind: str, guide: str | None = None) -> Event:
    text = {} if guide is None else {"guided_decoding_guide": guide}
    return {"guided_decoding_guide_type": kind, **text}


@pytest.fixture(scope="session")
def tokenizer(model_dir: Path) -> EngineTokenizer:
    return EngineTokenizer(model_dir)


def body(tokenizer: EngineTokenizer, max_tokens: int, **more: object) -> Event:
    return bare_body(max_tokens, end_id=tokenizer.eos_id, **more)


async def bare_text(server: Server, tokenizer: EngineTokenizer, model: str, request: Event) -> str:
    _, seen = await server.stream(model, request)
    return tokenizer.decode([token for event in seen for token in tokens_of(event)])


@pytest.mark.parametrize("model", BARE_MODELS)
async def test_the_bare_model_follows_a_schema(
    server: Server, tokenizer: EngineTokenizer, model: str
) -> None:
    """A random model and warm sampling: only the grammar can make this valid, and it ends."""
    request = body(tokenizer, 300, **guided("json_schema", json.dumps(SCHEMA)))
    texts = await asyncio.gather(*(bare_text(server, tokenizer, model, request) for _ in range(4)))
    for text in texts:
        jsonschema.validate(json.loads(text), SCHEMA)


@pytest.mark.parametrize("model", TEXT_MODELS)
@pytest.mark.parametrize(
    ("guide", "pattern"),
    [
        (guided("json"), r"[{\[].*[}\]]"),
        (guided("regex", "[0-9]{3}-[a-f]{2}"), r"\d{3}-[a-f]{2}"),
        (guided("ebnf_grammar", 'root ::= ("tea" | "coal") "!"'), "(tea|coal)!"),
    ],
)
async def test_text_models_pass_guides_on(server: Server, model: str, guide: Event, pattern: str) -> None:
    asked = {"text_input": "the engine", "max_tokens": 300, "exclude_input_in_output": True, **guide}
    _, seen = await server.stream(model, asked)
    (event,) = seen
    assert re.fullmatch(pattern, event["text_output"])


async def test_many_guides_and_none_in_one_batch(server: Server, tokenizer: EngineTokenizer) -> None:
    patterns = ["[0-9]{30}", "[a-f]{30}", "(yes|no)", None, None, "[x-z]{9}"] * 4
    requests = [
        body(tokenizer, 60, min_tokens=40)
        if pattern is None
        else body(tokenizer, 60, **guided("regex", pattern))
        for pattern in patterns
    ]
    texts = await asyncio.gather(
        *(bare_text(server, tokenizer, "tensorrt_llm", request) for request in requests)
    )
    for text, pattern in zip(texts, patterns, strict=True):
        if pattern is not None:
            assert re.fullmatch(pattern, text)


async def test_a_guided_request_whose_client_leaves_is_cancelled(
    server: Server, tokenizer: EngineTokenizer
) -> None:
    request = body(tokenizer, 900, fault="slow:10", **guided("regex", "[0-9]{800}"))
    async with server.open_stream("tensorrt_llm", request) as response:
        await anext(events(response))
        await server.until_active("tensorrt_llm", lambda active: active == 1)
        response.close()
    await server.until_active("tensorrt_llm", lambda active: active == 0)
    short = body(tokenizer, 20, **guided("regex", "[0-9]{5}"))
    assert re.fullmatch("[0-9]{5}", await bare_text(server, tokenizer, "tensorrt_llm", short))


async def test_a_type_that_is_not_known_is_left_alone(server: Server, tokenizer: EngineTokenizer) -> None:
    plain = body(tokenizer, 8, runtime_top_k=1)
    unknown = {**plain, **guided("structural_tag", "{}")}
    texts = [await bare_text(server, tokenizer, "tensorrt_llm", one) for one in (plain, unknown)]
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("guide", "message"),
    [
        (guided("json_schema"), "The guide string must be provided unless using GuideType::kJSON."),
        (guided("json_schema", "{"), "Encountered an error in forwardAsync function: "),
        (guided("regex", "[0-9"), "Encountered an error in forwardAsync function: "),
    ],
)
async def test_a_bad_guide_is_an_error_of_its_request(
    server: Server, tokenizer: EngineTokenizer, guide: Event, message: str
) -> None:
    _, seen = await server.stream("tensorrt_llm", body(tokenizer, 8, **guide))
    assert message in seen[-1]["error"]
    status, seen = await server.stream("tensorrt_llm", body(tokenizer, 4, min_tokens=4))
    assert (status, len(seen)) == (200, 4)


async def test_without_a_backend_guides_are_refused(server: Server) -> None:
    _, answer = await server.generate("whole", bare_body(8, streaming=False, **guided("json")))
    assert answer["error"].startswith("Executor failed process requestId ")
    assert (
        "Request is specified with GuidedDecodingParams, but GuidedDecoder is not setup." in answer["error"]
    )
