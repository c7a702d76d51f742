"""Triton's vLLM backend: what it tells and takes that other lanes do not."""

from __future__ import annotations

import asyncio
import re

import aiohttp
import pytest

from inference.errors import (
    PromptTooLongError,
    RequestRefusedError,
    UnsupportedFeatureError,
)
from inference.logit_bias import LogitBias
from inference.request import Extra, Options
from model_registry.entities import ServerRef
from tests.inference.recording import RecordingSink
from tests.inference.speaking import (
    TRANSPORTS,
    WAIT_S,
    Speaker,
    Transport,
    ended,
    until,
)


@pytest.mark.parametrize("stream", [True, False])
async def test_vllm_gives_the_likeliest_tokens_too(speaker: Speaker, stream: bool) -> None:
    """Of each token the chosen one, equal to the bare model's, and as many others as asked for."""
    bare = await speaker.ask("ids", "http", log_probs=True)
    sink = await speaker.ask("pages", "http", log_probs=True, top_log_probs=3, stream=stream)
    assert sink.error is None
    assert [score.token for score in sink.token_scores] == bare.ids
    assert [score.log_prob for score in sink.token_scores] == pytest.approx(bare.log_probs, abs=1e-4)
    for score in sink.token_scores:
        assert len(score.top) == 3
        assert score.top[0] == (score.token, score.log_prob)  # greedy: the chosen one is the likeliest
        assert list(score.top) == sorted(score.top, key=lambda pair: -pair[1])


async def test_vllm_stops_at_a_stop_string_and_shows_it(speaker: Speaker) -> None:
    """So that it can be told which it was, and that no end token was counted."""
    bare = await speaker.ask("ids", "http", max_tokens=6)
    word = speaker.tokenizer.tokenizer.decode(bare.ids[4:6])
    cut = await speaker.ask("pages", "http", stop=(word,))
    assert cut.usage is not None
    assert (cut.reason, cut.usage.completion_tokens) == ("stop", 6)
    assert cut.text_so_far == speaker.text_of(bare)
    assert cut.text_so_far.endswith(word)
    whole = await speaker.ask("pages", "http", max_tokens=200, stop=("never said",))
    plain = await speaker.ask("ids", "http", max_tokens=200)
    assert whole.usage is not None
    assert (whole.reason, whole.usage.completion_tokens, whole.usage.counts_end) == (
        "stop",
        len(plain.ids),
        True,
    )
    assert whole.token_scores == []


VLLM_OPTIONS = {
    "bad_words": Options(bad_words=("box", " box")),
    "stop_token_ids": Options(stop_token_ids=(70,)),
    "ignore_eos": Options(ignore_eos=True),
    "skip_special_tokens": Options(skip_special_tokens=False),
    "min_p": Options(extras={"min_p": Extra(0.2, "")}),
    "allowed_token_ids": Options(extras={"allowed_token_ids": Extra([70, 71], "")}),
}


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("name", VLLM_OPTIONS)
async def test_vllm_takes_its_own_parameters(speaker: Speaker, transport: Transport, name: str) -> None:
    request = speaker.request(max_tokens=8)
    request.options = VLLM_OPTIONS[name]
    sink = await speaker.answer("pages", transport, request)
    assert sink.error is None
    assert sink.usage is not None
    if name == "allowed_token_ids":
        tokens = [speaker.tokenizer.tokenizer.decode([token]) for token in (70, 71)]
        assert set(sink.text_so_far) <= set("".join(tokens))


@pytest.mark.parametrize("name", ["logit_bias", "add_special_tokens", "length_penalty", "allowed_token_ids"])
async def test_vllm_refuses_what_its_json_cannot_say(speaker: Speaker, name: str) -> None:
    asked = {
        "logit_bias": Options(logit_bias=LogitBias({5: 1.0}, 100)),
        "add_special_tokens": Options(add_special_tokens=False),
        "length_penalty": Options(extras={"length_penalty": Extra(1.2, "there are no beams")}),
        "allowed_token_ids": Options(extras={"allowed_token_ids": Extra([], "none is left")}),
    }
    request = speaker.request()
    request.options = asked[name]
    with pytest.raises(UnsupportedFeatureError, match=f"`{name}` is not supported by the vllm lane"):
        await speaker.answer("pages", "http", request)


async def test_a_token_that_vllm_does_not_have_is_the_callers_mistake(speaker: Speaker) -> None:
    request = speaker.request()
    request.options = Options(extras={"allowed_token_ids": Extra([10**6], "")})
    assert isinstance((await speaker.answer("pages", "http", request)).error, RequestRefusedError)


async def test_parameters_that_vllm_refuses_do_not_blame_the_server(speaker: Speaker) -> None:
    sink = await speaker.ask("pages", "http", top_p=7.0)
    assert isinstance(sink.error, RequestRefusedError)
    assert "NoneType" not in str(sink.error)


@pytest.mark.parametrize("stop", [(), ("never said",)])
async def test_text_of_tokens_that_end_a_vllm_answer_stays_out(
    speaker: Speaker, stop: tuple[str, ...]
) -> None:
    """Also beside a stop string, which vLLM could only keep together with it."""
    plain = await speaker.ask("ids", "http")
    token = plain.ids[4]
    request = speaker.request(stop=stop)
    request.options = Options(stop_token_ids=(token,))
    sink = await speaker.answer("pages", "http", request)
    assert sink.reason == "stop"
    detokenizer = speaker.tokenizer.detokenizer()
    assert sink.text_so_far == detokenizer.push(plain.ids[: plain.ids.index(token)]) + detokenizer.flush()


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_leaving_a_vllm_stream_stops_the_engine(speaker: Speaker, transport: Transport) -> None:
    """The backend notices when it has sent another response: far from all of the answer is generated."""
    before = await generated(speaker.server)
    seen = asyncio.Event()
    sink = RecordingSink(on_push=seen.set)
    request = speaker.request(max_tokens=400, min_tokens=400, temperature=1.0)
    call = await speaker.start("pages", transport, sink, request)
    async with asyncio.timeout(WAIT_S):
        await seen.wait()
    call.cancel()

    async def at_rest() -> bool:
        first = await generated(speaker.server)
        await asyncio.sleep(0.25)  # longer than the counter's period, by which it would grow
        return before < first == await generated(speaker.server)

    await until(at_rest)
    assert await generated(speaker.server) - before < 350
    assert sink.ends == 0


async def generated(server: ServerRef) -> float:
    """Tokens that the vLLM model has generated."""
    async with aiohttp.ClientSession() as session, session.get(str(server.metrics)) as answer:
        text = await answer.text()
    found = re.search(
        r'^vllm:generation_tokens_total\{model="pages",version="1"\} (\S+)$', text, re.MULTILINE
    )
    return float(found[1]) if found else 0.0


async def test_a_prompt_beyond_vllms_length_is_refused(speaker: Speaker) -> None:
    request = speaker.request()
    request.prompt_text = "word " * 700
    sink = RecordingSink()
    await speaker.start("pages", "http", sink, request)
    await ended(sink)
    assert isinstance(sink.error, PromptTooLongError)
