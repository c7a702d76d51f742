"""The official `openai` SDK against the whole stack: every demo model, streamed and not."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam

from inference.tokenizer import ModelTokenizer
from tests.stack.stack import ROOT, Stack

MODELS = [
    "house-chat",
    "house-chat:latency",
    "house-chat:throughput",
    "depot-chat",
    "siding-chat",
    "yard-chat",
    "kiosk-chat",
]
TOKENIZERS = {
    "house-chat": "house-chat",
    "depot-chat": "depot-chat",
    "siding-chat": "depot-chat",
    "yard-chat": "house-chat",
    "kiosk-chat": "house-chat",
}
ASK: list[ChatCompletionMessageParam] = [{"role": "user", "content": "What is the capital of France?"}]


def tokenizer_of(model: str) -> ModelTokenizer:
    name = TOKENIZERS[model.partition(":")[0]]
    return ModelTokenizer.load(ROOT / "emulator" / "models" / name)


def counted(model: str, messages: Sequence[ChatCompletionMessageParam], answer: str) -> tuple[int, int]:
    """What the model's own tokenizer says of prompt and answer."""
    tokenizer = tokenizer_of(model)
    _, ids = tokenizer.encode_chat([dict(message) for message in messages])
    return len(ids), tokenizer.count(answer)


@pytest.fixture
def client(stack: Stack) -> OpenAI:
    return stack.client()


@pytest.mark.parametrize("model", MODELS)
def test_every_model_answers_streamed_as_not_streamed(client: OpenAI, model: str) -> None:
    """Greedy answers agree, end by themselves, and their usage is what the tokenizer counts."""
    whole = client.chat.completions.create(model=model, messages=ASK, temperature=0, max_tokens=64)
    text = whole.choices[0].message.content or ""
    assert text
    assert whole.choices[0].finish_reason == "stop"
    assert whole.usage is not None
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == counted(model, ASK, text)

    stream = client.chat.completions.create(
        model=model,
        messages=ASK,
        temperature=0,
        max_tokens=64,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == text
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.model_dump() == whole.usage.model_dump() | {
        "prompt_tokens_details": chunks[-1].usage.model_dump()["prompt_tokens_details"]
    }
    if not model.startswith("depot"):
        assert len([c for c in chunks if c.choices and c.choices[0].delta.content]) > 2


@pytest.mark.parametrize("model", ["house-chat", "depot-chat"])
def test_text_completions(client: OpenAI, model: str) -> None:
    """`/v1/completions`, several prompts and choices, streamed and not."""
    whole = client.completions.create(
        model=model, prompt=["The engine", "A train"], n=2, temperature=0, max_tokens=5
    )
    assert [choice.index for choice in whole.choices] == [0, 1, 2, 3]
    assert whole.choices[0].text == whole.choices[1].text
    stream = client.completions.create(
        model=model, prompt=["The engine", "A train"], n=2, temperature=0, max_tokens=5, stream=True
    )
    texts = ["", "", "", ""]
    for chunk in stream:
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == [choice.text for choice in whole.choices]


@pytest.mark.parametrize("model", ["house-chat", "yard-chat", "kiosk-chat", "depot-chat", "siding-chat"])
def test_the_length_limit_ends_with_length(client: OpenAI, model: str) -> None:
    """Exactly `max_tokens` tokens, and the reason says so."""
    answer = client.chat.completions.create(model=model, messages=ASK, temperature=0, max_completion_tokens=2)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 2


def test_a_stop_string_is_cut_off_and_ends_with_stop(client: OpenAI) -> None:
    """Wherever its token borders are."""
    plain = client.chat.completions.create(model="house-chat", messages=ASK, temperature=0)
    text = plain.choices[0].message.content or ""
    stop = text[3:6]
    for stream in (False, True):
        answer = client.chat.completions.create(
            model="house-chat", messages=ASK, temperature=0, stop=[stop, "never said"], stream=stream
        )
        if isinstance(answer, openai.Stream):
            chunks = list(answer)
            got = "".join(c.choices[0].delta.content or "" for c in chunks)
            reason = chunks[-1].choices[0].finish_reason
        else:
            got, reason = answer.choices[0].message.content or "", answer.choices[0].finish_reason
        assert got == text[: text.index(stop)]
        assert reason == "stop"


def test_a_seed_repeats_and_no_seed_varies(client: OpenAI) -> None:
    """Equal seeds give equal answers; without one, answers are not all the same."""

    def ask(seed: int | None) -> str:
        answer = client.chat.completions.create(
            model="house-chat",
            messages=[{"role": "user", "content": "Tell me something about engines."}],
            temperature=1.8,
            max_tokens=24,
            seed=seed,
        )
        return answer.choices[0].message.content or ""

    assert ask(7) == ask(7)
    assert len({ask(None) for _ in range(6)}) > 1


def test_log_probabilities_of_the_chosen_tokens(client: OpenAI) -> None:
    """One entry a token; their texts are the answer; streamed equals whole."""
    whole = client.chat.completions.create(
        model="house-chat", messages=ASK, temperature=0, logprobs=True, max_tokens=16
    )
    assert whole.choices[0].logprobs is not None
    entries = whole.choices[0].logprobs.content or []
    assert whole.usage is not None
    assert len(entries) == whole.usage.completion_tokens
    assert b"".join(bytes(e.bytes or []) for e in entries).decode() == whole.choices[0].message.content
    assert all(entry.logprob <= 0 for entry in entries)
    stream = client.chat.completions.create(
        model="house-chat", messages=ASK, temperature=0, logprobs=True, max_tokens=16, stream=True
    )
    streamed = [e for c in stream if c.choices[0].logprobs for e in c.choices[0].logprobs.content or []]
    assert [e.token for e in streamed] == [e.token for e in entries]


@pytest.mark.parametrize("stream", [False, True])
def test_vllm_gives_the_likeliest_tokens(client: OpenAI, stream: bool) -> None:
    """As many as asked for beside each chosen one; the chosen ones are the answer's text."""
    asked: dict[str, Any] = {"model": "siding-chat", "messages": ASK, "temperature": 0, "max_tokens": 12}
    answer = client.chat.completions.create(**asked, logprobs=True, top_logprobs=3, stream=stream)
    if isinstance(answer, openai.Stream):
        choices = [chunk.choices[0] for chunk in answer]
        text = "".join(choice.delta.content or "" for choice in choices)
        entries = [e for choice in choices if choice.logprobs for e in choice.logprobs.content or []]
    else:
        text = answer.choices[0].message.content or ""
        assert answer.choices[0].logprobs is not None
        entries = answer.choices[0].logprobs.content or []
        assert answer.usage is not None
        assert answer.usage.completion_tokens == len(entries)
    assert b"".join(bytes(e.bytes or []) for e in entries).decode() == text
    assert all(len(e.top_logprobs) == 3 and e.top_logprobs[0].token == e.token for e in entries)
    columns = client.completions.create(model="siding-chat", prompt="The", max_tokens=3, logprobs=2)
    assert columns.choices[0].logprobs is not None
    assert [len(top) for top in columns.choices[0].logprobs.top_logprobs or []] == [2, 2, 2]


def test_usage_is_exact_where_vllm_meets_a_stop_string(client: OpenAI) -> None:
    """The tokens up to and with the stop string count, as the bare lane counts them."""
    asked: dict[str, Any] = {"model": "siding-chat", "messages": ASK, "temperature": 0, "max_tokens": 40}
    whole = client.chat.completions.create(**asked, logprobs=True)
    assert whole.choices[0].logprobs is not None
    entries = whole.choices[0].logprobs.content or []
    stop = entries[3].token + entries[4].token
    cut = client.chat.completions.create(**asked, stop=stop)
    assert cut.choices[0].finish_reason == "stop"
    assert stop not in (cut.choices[0].message.content or "")
    assert cut.usage is not None
    assert cut.usage.completion_tokens == 5


def test_what_a_lane_cannot_do_is_refused_by_name(client: OpenAI) -> None:
    """Never silently ignored."""
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="depot-chat", messages=ASK, logprobs=True)
    assert caught.value.param == "logprobs"
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="house-chat", messages=ASK, logprobs=True, top_logprobs=2)
    assert caught.value.param == "top_logprobs"
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="house-chat", messages=ASK, modalities=["text", "audio"])
    assert caught.value.param == "modalities"


def test_errors_are_openais(client: OpenAI, stack: Stack) -> None:
    """The SDK raises its own classes, with our codes."""
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="house-cat", messages=ASK)
    assert missing.value.code == "model_not_found"
    assert "house-chat" in missing.value.message
    with pytest.raises(openai.AuthenticationError) as denied:
        OpenAI(base_url=stack.base_url, api_key="eh-wrong", max_retries=0).models.list()
    assert denied.value.code == "invalid_api_key"
    with pytest.raises(openai.BadRequestError) as too_long:
        client.chat.completions.create(
            model="house-chat", messages=[{"role": "user", "content": "engine " * 5000}]
        )
    assert too_long.value.code == "context_length_exceeded"


def test_models_are_listed(client: OpenAI, stack: Stack) -> None:
    """All of them, and each by its name."""
    listed = {model.id for model in client.models.list()}
    assert listed >= set(stack.ready["models"])
    assert client.models.retrieve("house-chat").id == "house-chat"


@pytest.mark.parametrize("model", ["house-chat", "house-chat:throughput", "depot-chat", "siding-chat"])
async def test_200_concurrent_streams_complete(stack: Stack, model: str) -> None:
    """Every one of them ends cleanly with its own usage."""

    async def one(client: openai.AsyncOpenAI, number: int) -> int:
        stream = await client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": f"Count from {number} upwards."}],
            temperature=0.7,
            max_tokens=24,
            stream=True,
            stream_options={"include_usage": True},
        )
        last = None
        async for chunk in stream:
            last = chunk
        assert last is not None
        assert last.usage is not None
        return last.usage.completion_tokens

    async with stack.async_client() as client:
        counts = await asyncio.gather(*(one(client, number) for number in range(200)))
    assert len(counts) == 200
    assert all(1 <= count <= 24 for count in counts)
