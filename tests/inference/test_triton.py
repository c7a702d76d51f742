"""Every lane over both transports against a real Triton: how it answers."""

from __future__ import annotations

from typing import Any

import pytest

from inference.errors import (
    InferenceError,
    UnsupportedFeatureError,
)
from tests.inference.recording import RecordingSink
from tests.inference.speaking import (
    TARGETS,
    TRANSPORTS,
    Speaker,
    Transport,
    ended,
)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("target", TARGETS)
async def test_every_lane_gives_the_same_answer(speaker: Speaker, target: str, transport: Transport) -> None:
    """Greedy, streamed: as the bare model gives it in one piece."""
    whole = await speaker.ask("ids", "http", stream=False)
    sink = await speaker.ask(target, transport)
    assert sink.error is None
    assert speaker.text_of(sink) == speaker.text_of(whole)
    assert sink.heads == 1
    assert len(sink.deltas) + len(sink.ids) > 3


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("target", TARGETS)
async def test_an_answer_may_come_in_one_piece(speaker: Speaker, target: str, transport: Transport) -> None:
    sink = await speaker.ask(target, transport, stream=False)
    streamed = await speaker.ask("ids", "http")
    assert sink.error is None
    assert speaker.text_of(sink) == speaker.text_of(streamed)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_the_bare_model_counts_exactly(speaker: Speaker, transport: Transport) -> None:
    request = speaker.request()
    sink = RecordingSink()
    await speaker.start("ids", transport, sink, request)
    await ended(sink)
    assert (sink.error, sink.usage is not None) == (None, True)
    assert sink.usage.prompt_tokens == len(request.prompt_ids or ())
    assert sink.usage.completion_tokens == len(sink.ids)
    assert sink.usage.cached_tokens is not None


@pytest.mark.parametrize("target", ["ids", "old_ids", "text", "script", "words", "old_words", "pages"])
async def test_an_answer_at_its_limit_says_so(speaker: Speaker, target: str) -> None:
    assert (await speaker.ask(target, "http", max_tokens=3)).reason == "length"


@pytest.mark.parametrize("target", ["text", "pages"])
async def test_text_lanes_count_where_the_server_does(speaker: Speaker, target: str) -> None:
    bare = await speaker.ask("ids", "http")
    sink = await speaker.ask(target, "http")
    assert bare.usage is not None
    assert (sink.error, sink.usage is not None) == (None, True)
    assert sink.usage.completion_tokens == bare.usage.completion_tokens
    assert sink.usage.prompt_tokens == bare.usage.prompt_tokens
    assert sink.reason == bare.reason


@pytest.mark.parametrize("target", ["ids", "text", "words", "old_words", "pages"])
async def test_a_stop_string_ends_the_answer(speaker: Speaker, target: str) -> None:
    whole = speaker.text_of(await speaker.ask("ids", "http"))
    bare = await speaker.ask("ids", "http", max_tokens=6)
    word = speaker.tokenizer.tokenizer.decode(bare.ids[4:6])
    assert speaker.tokenizer.encode(word, add_special_tokens=False) == bare.ids[4:6]
    sink = await speaker.ask(target, "http", stop=(word,))
    assert sink.error is None
    assert sink.reason == "stop"
    assert len(speaker.text_of(sink)) < len(whole)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_log_probabilities_come_with_each_token(speaker: Speaker, transport: Transport) -> None:
    sink = await speaker.ask("ids", transport, log_probs=True)
    assert len(sink.log_probs) == len(sink.ids) > 0
    assert all(value <= 0 for value in sink.log_probs)


@pytest.mark.parametrize("target", ["ids", "old_ids", "text", "words", "old_words", "pages"])
async def test_seeds(speaker: Speaker, target: str) -> None:
    """Equal seeds give equal answers; without one, equal requests differ."""
    hot: dict[str, Any] = {"temperature": 2.0, "max_tokens": 40}
    seeded = [speaker.text_of(await speaker.ask(target, "http", seed=7, **hot)) for _ in range(2)]
    free = [speaker.text_of(await speaker.ask(target, "http", **hot)) for _ in range(3)]
    assert seeded[0] == seeded[1]
    assert len(set(free)) > 1


async def test_a_prompt_beyond_the_engine_is_refused(speaker: Speaker) -> None:
    request = speaker.request()
    request.prompt_ids = [5] * 481
    sink = RecordingSink()
    await speaker.start("ids", "http", sink, request)
    await ended(sink)
    assert isinstance(sink.error, InferenceError)
    assert not sink.error.retry_safe


async def test_other_lanes_refuse_the_likeliest_tokens(speaker: Speaker) -> None:
    with pytest.raises(UnsupportedFeatureError, match="top_logprobs"):
        await speaker.ask("ids", "http", log_probs=True, top_log_probs=2)
