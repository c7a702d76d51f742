"""Ensemble, BLS and llmapi in a real Triton: text in, text out, each with its habits."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from pathlib import Path

import pytest

from emulator.engine.tokenizer import EngineTokenizer
from tests.emulator.triton.server import Event, Server, bare_body, events, tokens_of

PROMPT = "the engine house"


def text_body(max_tokens: int, **more: object) -> Event:
    return {"text_input": PROMPT, "max_tokens": max_tokens, "stream": True, **more}


def llmapi_body(max_tokens: int, **more: object) -> Event:
    asked = {"sampling_param_max_tokens": max_tokens, "sampling_param_exclude_input_from_output": True}
    return {"text_input": PROMPT, "streaming": True, **asked, **more}


@pytest.fixture(scope="session")
def tokenizer(model_dir: Path) -> EngineTokenizer:
    return EngineTokenizer(model_dir)


async def _ids(server: Server, tokenizer: EngineTokenizer, seed: int, count: int) -> list[int]:
    """The bare model's own answer to the same prompt."""
    prompt = tokenizer.encode(PROMPT)
    ends = {"end_id": tokenizer.eos_id, "min_tokens": count}
    body = bare_body(count, input_ids=prompt, input_lengths=len(prompt), seed=seed, **ends)
    _, seen = await server.stream("tensorrt_llm", body)
    return [token for event in seen for token in tokens_of(event)]


async def test_the_ensemble_decodes_every_step_by_itself(server: Server, tokenizer: EngineTokenizer) -> None:
    ids = await _ids(server, tokenizer, seed=3, count=24)
    _, seen = await server.stream("ensemble", text_body(24, seed=3, min_tokens=24))
    pieces = [event["text_output"] for event in seen]
    assert pieces == [tokenizer.decode([token]) for token in ids]


async def test_postprocessing_damages_a_character_that_is_spread_over_tokens(
    server: Server, tokenizer: EngineTokenizer
) -> None:
    ids = tokenizer.encode("日", add_special_tokens=False)
    assert len(ids) > 1, "the tokenizer has a token for the whole character"
    assert await _decoded(server, ids) == "日"
    assert await _decoded(server, ids[:1]) == "\N{REPLACEMENT CHARACTER}"


async def _decoded(server: Server, ids: list[int]) -> str:
    tokens = {"name": "TOKENS_BATCH", "shape": [1, 1, len(ids)], "datatype": "INT32", "data": ids}
    lengths = {"name": "SEQUENCE_LENGTH", "shape": [1, 1], "datatype": "INT32", "data": [len(ids)]}
    _, answer = await server.post("/v2/models/postprocessing/infer", {"inputs": [tokens, lengths]})
    text: str = answer["outputs"][0]["data"][0]
    return text


async def test_bls_sends_steps_or_with_accumulate_tokens_the_whole_text(
    server: Server, tokenizer: EngineTokenizer
) -> None:
    ids = await _ids(server, tokenizer, seed=3, count=12)
    _, steps = await server.stream("tensorrt_llm_bls", text_body(12, seed=3, min_tokens=12))
    assert [event["text_output"] for event in steps] == [tokenizer.decode([token]) for token in ids]
    _, wholes = await server.stream("old_bls", text_body(12, random_seed=3, min_length=12))
    assert [event["text_output"] for event in wholes] == [tokenizer.decode(ids[: n + 1]) for n in range(12)]


async def test_bls_errors_are_tracebacks(server: Server) -> None:
    _, seen = await server.stream("tensorrt_llm_bls", text_body(0))
    assert seen[0]["error"].startswith("Traceback (most recent call last)")
    assert "Executor failed process requestId" in seen[0]["error"]


async def test_llmapi_sends_the_whole_text_so_far_and_numbers_as_text(server: Server) -> None:
    flags = {"return_finish_reason": True, "sampling_param_return_perf_metrics": True}
    sampled = {"sampling_param_temperature": 1.0, "sampling_param_seed": 1, "sampling_param_stop": ["@@"]}
    _, seen = await server.stream("llmapi", llmapi_body(8, **sampled, **flags))
    texts = [event["text_output"] for event in seen]
    assert all(later.startswith(earlier) for earlier, later in pairwise(texts))
    assert (seen[-1]["finish_reason"], len(seen)) == ("length", 8)
    assert isinstance(seen[-1]["kv_cache_alloc_total_blocks"], str)


async def test_llmapi_repeats_the_prompt_unless_told_otherwise(server: Server) -> None:
    _, plain = await server.generate("llmapi", llmapi_body(4, streaming=False))
    body = {"text_input": PROMPT, "sampling_param_max_tokens": 4}
    _, echoed = await server.generate("llmapi", body)
    assert echoed["text_output"] == PROMPT + plain["text_output"]


async def test_llmapi_errors_have_their_prefix(server: Server) -> None:
    _, seen = await server.stream("llmapi", llmapi_body(4, fault="error"))
    assert seen[-1]["error"].startswith("Error generating request:")
    _, refused = await server.stream("llmapi", llmapi_body(4, sampling_param_best_of=2))
    assert refused[0]["error"].startswith("Error generating request:")


LONG = {"sampling_param_temperature": 1.0, "sampling_param_seed": 1, "fault": "slow:10", "id": "s"}
"""An answer that has not ended by itself when it is told to stop."""


async def test_llmapi_stop_ends_the_stream_and_answers_with_an_error(server: Server) -> None:
    async with server.open_stream("llmapi", llmapi_body(900, **LONG)) as response:
        stream = events(response)
        await anext(stream)
        _, answer = await server.generate("llmapi", {"text_input": "", "stop": True, "id": "s"})
        assert answer["error"] == "Request cancelled by client"
        assert len([event async for event in stream]) < 300


async def test_llmapi_1x_leaves_a_stopped_stream_open(server: Server) -> None:
    """Only its client's leaving ends it."""
    async with server.open_stream("old_llmapi", llmapi_body(900, **LONG)) as response:
        stream = events(response)
        await anext(stream)
        _, answer = await server.generate("old_llmapi", {"text_input": "", "stop": True, "id": "s"})
        assert answer["error"] == "Request cancelled by client"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                assert len([event async for event in stream]) < 300


async def test_llmapi_1x_has_no_tensors_for_adapters(server: Server) -> None:
    _, answer = await server.generate("old_llmapi", llmapi_body(2, streaming=False))
    assert "text_output" in answer
    names = {tensor["name"] for tensor in (await server.get("/v2/models/old_llmapi"))["inputs"]}
    assert not {name for name in names if "lora" in name or "post_processor" in name}


async def test_leaving_an_ensemble_stream_does_not_stop_the_engine(server: Server) -> None:
    """As in the real one: the running step keeps its slot until it is through."""
    body = text_body(40, min_tokens=40, fault="slow:20")
    async with server.open_stream("ensemble", body) as response:
        await anext(events(response))
        await server.until_active("tensorrt_llm", lambda active: active == 1)
        response.close()
    assert await server.until_active("tensorrt_llm", lambda active: active == 0) > 0.4


@pytest.mark.parametrize("model", ["ensemble", "llmapi"])
async def test_a_hundred_streams_at_once_all_complete(server: Server, model: str) -> None:
    body = text_body(10, min_tokens=10) if model == "ensemble" else llmapi_body(10)
    answers = await asyncio.gather(*(server.stream(model, body) for _ in range(100)))
    assert {status for status, _ in answers} == {200}
    assert all("error" not in event for _, seen in answers for event in seen)
