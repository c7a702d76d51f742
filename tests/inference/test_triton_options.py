"""Guides, biases and ends of an answer, on every lane of a real Triton that has them."""

from __future__ import annotations

import re

import pytest

from inference.errors import (
    UnsupportedFeatureError,
)
from inference.logit_bias import LogitBias
from inference.request import Guide, Options
from tests.inference.speaking import (
    OPTION_TARGETS,
    TRANSPORTS,
    Speaker,
    Transport,
)

GUIDED_TARGETS = (*OPTION_TARGETS, "pages")


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("target", GUIDED_TARGETS)
@pytest.mark.parametrize(
    "guide",
    [
        Guide("regex", "[0-9]{3}"),
        Guide("ebnf_grammar", 'root ::= "123"'),
        Guide("json_schema", '{"const":123}'),
    ],
)
async def test_an_engine_follows_a_guide(
    speaker: Speaker, target: str, transport: Transport, guide: Guide
) -> None:
    request = speaker.request()
    request.guide = guide
    sink = await speaker.answer(target, transport, request)
    assert sink.error is None
    assert re.fullmatch("[0-9]{3}", speaker.text_of(sink))


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("target", OPTION_TARGETS)
async def test_a_bias_decides_the_next_token(speaker: Speaker, target: str, transport: Transport) -> None:
    tokenizer = speaker.tokenizer
    plain = await speaker.ask("ids", "http", max_tokens=1)
    token = next(
        token
        for token in range(50, tokenizer.vocab_size)
        if token != plain.ids[0] and (tokenizer.word_of(token) or "").isalpha()
    )
    word = tokenizer.word_of(token)
    assert word is not None
    request = speaker.request(max_tokens=2)
    request.options = Options(logit_bias=LogitBias({token: 100.0}, tokenizer.vocab_size, (word,)))
    sink = await speaker.answer(target, transport, request)
    assert sink.error is None
    assert speaker.text_of(sink) == 2 * word


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("target", OPTION_TARGETS)
async def test_bad_words_are_not_said(speaker: Speaker, target: str, transport: Transport) -> None:
    plain = await speaker.ask("ids", "http")
    bad = speaker.tokenizer.tokenizer.decode(plain.ids[2:3])
    request = speaker.request()
    ids = tuple(speaker.tokenizer.encode(bad, add_special_tokens=False))
    assert ids == tuple(plain.ids[2:3])
    request.options = Options(bad_words=(bad,), bad_ids=(ids,))
    sink = await speaker.answer(target, transport, request)
    assert sink.error is None
    assert speaker.text_of(sink) != speaker.text_of(plain)
    assert speaker.text_of(sink).startswith(speaker.tokenizer.decode(plain.ids[:2]))
    assert plain.ids[2] not in sink.ids


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("target", ["ids", "old_ids", "text", "script"])
async def test_an_answer_may_go_on_after_its_end(speaker: Speaker, target: str, transport: Transport) -> None:
    assert (await speaker.ask("ids", "http", max_tokens=60)).reason == "stop"
    request = speaker.request(max_tokens=60)
    request.end_id, request.options = -1, Options(ignore_eos=True)
    sink = await speaker.answer(target, transport, request)
    assert sink.error is None
    assert sink.reason == "length"


@pytest.mark.parametrize("target", ["old_text", "old_script"])
async def test_where_no_count_is_told_the_end_cannot_be_ignored(speaker: Speaker, target: str) -> None:
    """Why such an answer ended could not be told either."""
    request = speaker.request(max_tokens=60)
    request.end_id, request.options = -1, Options(ignore_eos=True)
    with pytest.raises(UnsupportedFeatureError, match="ignore_eos"):
        await speaker.answer(target, "http", request)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_token_may_end_the_answer(speaker: Speaker, transport: Transport) -> None:
    plain = await speaker.ask("ids", "http")
    token = plain.ids[4]
    request = speaker.request()
    request.options, request.stop_ids = Options(stop_token_ids=(token,)), ((token,),)
    sink = await speaker.answer("ids", transport, request)
    assert (sink.reason, sink.ids) == ("stop", plain.ids[: plain.ids.index(token) + 1])
