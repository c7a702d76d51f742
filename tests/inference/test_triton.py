"""Every lane over both transports against a real Triton: recognised, spoken to, read, cancelled, broken."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any, Literal

import aiohttp
import pytest
from aiohttp import web

from inference.client import ModelClients
from inference.control import TritonControl, health
from inference.errors import (
    InferenceError,
    PromptTooLongError,
    ProtocolError,
    RequestRefusedError,
    SchemaError,
    ServerFailedError,
    ServerTimeoutError,
    ServerUnreachableError,
    StreamBrokenError,
    UnsupportedFeatureError,
)
from inference.introspection import introspect
from inference.lane import TritonReader
from inference.lanes import lane_of
from inference.logit_bias import LogitBias
from inference.push_http import HttpPool, Timeouts
from inference.request import Extra, Guide, InferenceRequest, Options, Sampling
from inference.schema import Schema
from inference.sink import Call, Sink
from inference.tokenizer import ModelTokenizer
from inference.triton_http import TritonHttp
from model_registry.entities import Endpoint, ServerRef
from tests.inference.conftest import CHAT_MODEL
from tests.inference.recording import RecordingSink

TARGETS = {
    "ids": "tensorrt_llm",
    "old_ids": "tensorrt_llm",
    "text": "ensemble",
    "old_text": "ensemble",
    "script": "tensorrt_llm_bls",
    "old_script": "tensorrt_llm_bls",
    "words": "llmapi",
    "old_words": "llmapi",
    "pages": "vllm",
}
Transport = Literal["http", "grpc"]
TRANSPORTS: tuple[Transport, ...] = ("http", "grpc")
WAIT_S = 20.0
DEFAULT_TIMEOUTS = Timeouts()
CHAT = [{"role": "user", "content": "How do I store a box?"}]
_numbers = itertools.count()


@pytest.fixture(scope="session")
def tokenizer() -> ModelTokenizer:
    return ModelTokenizer.load(CHAT_MODEL)


class Speaker:
    """Starts requests at one Triton."""

    def __init__(self, server: ServerRef, tokenizer: ModelTokenizer) -> None:
        self.server = server
        self.tokenizer = tokenizer
        self._clients = ModelClients(Timeouts())

    async def start(
        self,
        target: str,
        transport: Transport,
        sink: RecordingSink,
        request: InferenceRequest,
    ) -> Call:
        schema = await introspect(self.server, target, TARGETS.get(target, "auto"))
        endpoint = Endpoint(
            name=f"{target}-{transport}",
            deployment="d",
            model="m",
            profile="balanced",
            lane=schema.lane,
            target=schema.target,
            http=self.server.http,
            grpc=self.server.grpc,
            transport=transport,
            server_schema=schema.as_dict(),
        )
        return self._clients.of(endpoint).start(request, sink)

    async def ask(self, target: str, transport: Transport, **fields: Any) -> RecordingSink:
        return await self.answer(target, transport, self.request(**fields))

    async def answer(self, target: str, transport: Transport, request: InferenceRequest) -> RecordingSink:
        sink = RecordingSink()
        await self.start(target, transport, sink, request)
        return await ended(sink)

    def request(self, max_tokens: int = 24, stream: bool = True, **fields: Any) -> InferenceRequest:
        """A chat; greedy unless told otherwise."""
        text, ids = self.tokenizer.encode_chat(CHAT)
        stop = fields.pop("stop", ())
        sampling = Sampling(**({"temperature": 0.0} | fields))
        return InferenceRequest(
            id=f"r{next(_numbers)}",
            model="m",
            stream=stream,
            max_tokens=max_tokens,
            sampling=sampling,
            stop=stop,
            stop_ids=tuple(tuple(self.tokenizer.encode(s, add_special_tokens=False)) for s in stop),
            prompt_ids=ids,
            prompt_text=text,
            prompt_bos=self.tokenizer.bos_token or "",
            end_id=self.tokenizer.end_id,
            pad_id=self.tokenizer.pad_id,
        )

    def text_of(self, sink: RecordingSink) -> str:
        """The answer as text, whichever lane brought it."""
        if not sink.ids:
            return sink.text_so_far
        detokenizer = self.tokenizer.detokenizer()
        return detokenizer.push(sink.ids) + detokenizer.flush()

    async def close(self) -> None:
        await self._clients.close()


async def ended(sink: RecordingSink) -> RecordingSink:
    async with asyncio.timeout(WAIT_S):
        await sink.over.wait()
    return sink


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)  # between questions to another process


@pytest.fixture
async def speaker(triton: ServerRef, tokenizer: ModelTokenizer) -> AsyncIterator[Speaker]:
    speaker = Speaker(triton, tokenizer)
    yield speaker
    await speaker.close()


# Introspection


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


# Answers


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


async def test_other_lanes_refuse_the_likeliest_tokens(speaker: Speaker) -> None:
    with pytest.raises(UnsupportedFeatureError, match="top_logprobs"):
        await speaker.ask("ids", "http", log_probs=True, top_log_probs=2)


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


# Options


OPTION_TARGETS = ("ids", "old_ids", "text", "old_text", "script", "old_script")
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


# Faults


class Faulty:
    """A lane whose requests make the engine misbehave: an undeclared key reaches it as a parameter."""

    def __init__(self, schema: Schema, fault: str) -> None:
        self._lane = lane_of(schema)
        self._fault = fault
        self.name = self._lane.name
        self.takes_stop = False

    def check(self, request: InferenceRequest) -> None:
        self._lane.check(request)

    def tensors(self, request: InferenceRequest) -> dict[str, Any]:
        return {**self._lane.tensors(request), "fault": self._fault}

    def reader(self, request: InferenceRequest, sink: Sink) -> TritonReader:
        return self._lane.reader(request, sink)


async def faulty(
    speaker: Speaker, target: str, fault: str, timeouts: Timeouts = DEFAULT_TIMEOUTS, **fields: Any
) -> RecordingSink:
    schema = await introspect(speaker.server, target, TARGETS.get(target, "auto"))
    pool = HttpPool(speaker.server.http, timeouts)
    sink = RecordingSink()
    TritonHttp(pool, target, Faulty(schema, fault)).start(speaker.request(**fields), sink)
    await ended(sink)
    pool.close()
    return sink


@pytest.mark.parametrize("target", ["ids", "text", "script", "words", "pages"])
async def test_a_truncated_answer_never_ends_cleanly(speaker: Speaker, target: str) -> None:
    sink = await faulty(speaker, target, "truncate")
    assert isinstance(sink.error, StreamBrokenError)
    assert speaker.text_of(sink)


@pytest.mark.parametrize("target", ["ids", "text", "script", "words", "pages"])
@pytest.mark.parametrize("fault", ["error", "error_before"])
async def test_an_engines_error_is_the_servers_failure(speaker: Speaker, target: str, fault: str) -> None:
    sink = await faulty(speaker, target, fault)
    # BLS ends its stream without a word when the engine fails in the middle.
    assert isinstance(sink.error, ServerFailedError | StreamBrokenError)
    assert "Traceback" not in str(sink.error)


@pytest.mark.parametrize("target", ["ids", "words", "pages"])
async def test_a_malformed_tensor_is_no_answer(speaker: Speaker, target: str) -> None:
    sink = await faulty(speaker, target, "wrong_tensor")
    assert isinstance(sink.error, ProtocolError | ServerFailedError)


async def test_a_model_whose_process_dies_is_seen_and_comes_back(speaker: Speaker) -> None:
    """Triton leaves its requests hanging and calls it ready; our limits and probe do not."""
    assert await health(speaker.server, "fragile", "tensorrt_llm")
    limits = Timeouts(first_byte_s=1.0, idle_s=1.0)
    sink = await faulty(speaker, "fragile", "crash", limits)
    assert isinstance(sink.error, ServerTimeoutError)
    assert not await health(speaker.server, "fragile", "tensorrt_llm")
    refused = await speaker.ask("fragile", "http")
    assert isinstance(refused.error, ServerUnreachableError)
    async with TritonControl(speaker.server) as control:
        await control.reload("fragile")
    assert await health(speaker.server, "fragile", "tensorrt_llm")
    assert (await speaker.ask("fragile", "http")).error is None


async def test_models_come_and_go(speaker: Speaker) -> None:
    async with TritonControl(speaker.server) as control:
        await control.unload("old_script")
        assert not await control.model_ready("old_script")
        assert not await health(speaker.server, "old_script", "tensorrt_llm_bls")
        await control.load("old_script")
    assert await health(speaker.server, "old_script", "tensorrt_llm_bls")
    assert (await speaker.ask("old_script", "http")).error is None


# Calls


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_cancelled_call_frees_its_slot(
    speaker: Speaker, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While streaming; and the sink hears no more."""
    seen = asyncio.Event()
    sink = RecordingSink(on_push=seen.set)
    request = speaker.request(max_tokens=400, min_tokens=400, temperature=1.0)
    call = await speaker.start("ids", transport, sink, request)
    async with asyncio.timeout(WAIT_S):
        await seen.wait()
    call.cancel()
    call.cancel()
    heard = len(sink.ids)
    async with TritonControl(speaker.server) as control:
        await until(lambda: idle(control, "ids"))
    assert len(sink.ids) == heard
    assert sink.ends == 0


async def idle(control: TritonControl, model: str) -> bool:
    metrics = await control.engine_metrics(model)
    return metrics["nv_trt_llm_request_metrics"]["active"] == 0


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_paused_call_reads_on_when_resumed(speaker: Speaker, transport: Transport) -> None:
    """The engine finishes meanwhile; nothing is pushed until the client can take it."""
    calls: list[Call] = []
    sink = RecordingSink(on_push=lambda: calls[0].pause())
    calls.append(
        await speaker.start("ids", transport, sink, speaker.request(max_tokens=200, temperature=1.0))
    )
    async with asyncio.timeout(WAIT_S):
        await sink.begun.wait()
    async with TritonControl(speaker.server) as control:
        await until(lambda: idle(control, "ids"))
    assert not sink.over.is_set()
    heard = len(sink.ids)
    while not sink.over.is_set():
        calls[0].resume()
        await asyncio.sleep(0)
    assert sink.error is None
    assert len(sink.ids) > heard


async def test_grpc_without_a_server_is_unreachable(speaker: Speaker) -> None:
    gone = Speaker(speaker.server.model_copy(update={"grpc": "127.0.0.1:9"}), speaker.tokenizer)
    sink = await gone.ask("ids", "grpc")
    assert isinstance(sink.error, ServerUnreachableError)
    await gone.close()


# Control


async def test_control_sees_the_server(triton: ServerRef) -> None:
    async with TritonControl(triton) as control:
        assert await control.live()
        assert {"ids", "text", "words"} <= {state.name for state in await control.index(ready_only=True)}
        statistics = await control.statistics("ids")
        assert statistics["model_stats"][0]["name"] == "ids"
        gauges = await control.engine_metrics("ids")
        assert gauges["nv_trt_llm_kv_cache_block_metrics"]["tokens_per"] == 32


async def test_health_of_nothing_is_false() -> None:
    assert not await health(ServerRef(http="http://127.0.0.1:9"), "m", "tensorrt_llm")
    assert not await health(ServerRef(http="http://127.0.0.1:9"), "m", "openai-http")


async def test_an_openai_server_is_recognised_by_what_it_answers() -> None:
    """A server without Triton's API, even one that asks for a key."""

    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"error": "key"}, status=401)

    app = web.Application()
    app.router.add_get("/v1/models", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    server = ServerRef(http=f"http://127.0.0.1:{port}")
    schema = await introspect(server, "m")
    assert replace(schema, max_concurrency=None) == Schema(lane="openai-http", target="m")
    assert await health(server, "m", "openai-http")
    await runner.cleanup()
