"""Inputs that bend what is sampled, on every lane that has them, and the histograms of token counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from emulator.engine.tokenizer import EngineTokenizer
from tests.emulator.triton.server import Event, Server, bare_body, tokens_of

PROMPT = "the engine house"
TEXT_MODELS = ("ensemble", "tensorrt_llm_bls", "old_ensemble", "old_bls")
BARE_MODELS = ("tensorrt_llm", "old")


@pytest.fixture(scope="session")
def tokenizer(model_dir: Path) -> EngineTokenizer:
    return EngineTokenizer(model_dir)


async def bare(server: Server, model: str, **more: object) -> list[int]:
    _, seen = await server.stream(model, bare_body(10, runtime_top_k=1) | more)
    return [token for event in seen for token in tokens_of(event)]


async def text(server: Server, model: str, **more: object) -> str:
    asked = {"text_input": PROMPT, "max_tokens": 10, "top_k": 1, "exclude_input_in_output": True}
    _, seen = await server.stream(model, {**asked, **more})
    (event,) = seen
    found: str = event["text_output"]
    return found


@pytest.mark.parametrize("model", BARE_MODELS)
async def test_a_bias_decides_what_is_chosen(server: Server, tokenizer: EngineTokenizer, model: str) -> None:
    bias = [0.0] * tokenizer.vocab_size
    bias[42] = 100.0
    assert await bare(server, model, embedding_bias=bias) == [42] * 10
    first = (await bare(server, model))[0]
    bias[42], bias[first] = 0.0, -100.0
    assert first not in await bare(server, model, embedding_bias=bias)


@pytest.mark.parametrize("model", TEXT_MODELS)
async def test_words_of_a_bias_become_a_bias_of_tokens(
    server: Server, tokenizer: EngineTokenizer, model: str
) -> None:
    assert len(tokenizer.encode("x", add_special_tokens=False)) == 1
    favoured = {"embedding_bias_words": ["x"], "embedding_bias_weights": [100.0]}
    assert await text(server, model, **favoured) == "x" * 10
    assert "x" not in await text(server, model, embedding_bias_words=["x"], embedding_bias_weights=[-100.0])


@pytest.mark.parametrize("model", TEXT_MODELS)
async def test_bad_words_are_not_said_and_stop_words_end_an_answer(server: Server, model: str) -> None:
    favoured: Event = {"embedding_bias_words": ["x", "y"], "embedding_bias_weights": [100.0, 50.0]}
    assert await text(server, model, bad_words=["x"], **favoured) == "y" * 10
    assert await text(server, model, stop_words=["xx"], **favoured) == "xx"


@pytest.mark.parametrize("model", BARE_MODELS)
async def test_penalties_make_repetition_less_likely(
    server: Server, tokenizer: EngineTokenizer, model: str
) -> None:
    """A token with a head start of 100 is said once, or ten times where nothing is taken off."""
    bias = [0.0] * tokenizer.vocab_size
    bias[42] = 100.0
    for penalty in ({"presence_penalty": 200.0}, {"frequency_penalty": 200.0}, {"repetition_penalty": 1e6}):
        said = await bare(server, model, embedding_bias=bias, **penalty)
        assert (said[0], said.count(42)) == (42, 1), penalty


@pytest.mark.parametrize("model", ["ensemble", "tensorrt_llm_bls"])
async def test_text_models_return_several_sequences(server: Server, model: str) -> None:
    asked = {"text_input": PROMPT, "max_tokens": 6, "num_return_sequences": 3, "seed": 4, "min_tokens": 6}
    _, seen = await server.stream(model, {**asked, "exclude_input_in_output": True, "return_log_probs": True})
    assert sorted(event["sequence_index"] for event in seen) == [0, 1, 2]
    assert len({event["text_output"] for event in seen}) > 1
    for event in seen:
        assert event["cum_log_probs"] == pytest.approx(sum(event["output_log_probs"]), abs=1e-4)


async def test_accumulated_texts_of_several_sequences_are_kept_apart(server: Server) -> None:
    """Each grows by itself: no text of one sequence shows up in another."""
    asked = {"text_input": PROMPT, "max_tokens": 6, "num_return_sequences": 2, "random_seed": 4}
    _, seen = await server.stream("old_bls", {**asked, "stream": True, "min_length": 6})
    texts: dict[int, list[str]] = {0: [], 1: []}
    for event in seen:
        texts[event["sequence_index"]].append(event["text_output"])
    assert [len(one) for one in texts.values()] == [6, 6]
    _, whole = await server.stream("old_bls", {**asked, "min_length": 6, "exclude_input_in_output": True})
    assert {event["sequence_index"]: event["text_output"] for event in whole} == {
        number: one[-1] for number, one in texts.items()
    }


async def test_answers_are_counted_by_their_lengths(server: Server) -> None:
    """Histograms of the C++ model, with its buckets; a request that failed is in none of them."""
    families = {
        "nv_llm_input_token_len": ("total_input_tokens", 3),
        "nv_llm_output_token_len": ("total_output_tokens", 20),
    }

    async def look(suffix: str, **more: str) -> list[float]:
        return [
            await server.gauge(f"{name}_{suffix}", model="old", response_metric_type=label, **more)
            for name, (label, _) in families.items()
        ]

    counts, sums, small = await look("count"), await look("sum"), await look("bucket", le="10")
    await server.stream("old", bare_body(20, min_length=20))
    await server.stream("old", bare_body(20, fault="error_before"))
    lengths = [length for _, length in families.values()]
    assert await look("count") == [count + 1 for count in counts]
    assert await look("sum") == [total + length for total, length in zip(sums, lengths, strict=True)]
    assert await look("bucket", le="10") == [small[0] + 1, small[1]]
    assert await look("bucket", le="50") >= await look("bucket", le="10")
