"""`/v1/responses` and `/v1/messages` against the whole stack, by the official SDKs, on every lane."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import anthropic
import openai
import pytest

from tests.openai_schema import validate
from tests.stack.apis import (
    QUESTION,
    answers_end_for_the_same_reasons,
    anthropic_client,
    chat_of,
    messages_say_what_chat_says,
    responses_say_what_chat_says,
)
from tests.stack.stack import Stack
from tests.stack.test_cancellation import until_active

MODELS = [
    "house-chat",
    "house-chat:throughput",
    "house-chat+sailor",
    "depot-chat",
    "siding-chat",
    "yard-chat",
    "kiosk-chat",
]
ASK: list[Any] = [{"role": "user", "content": QUESTION}]


@pytest.mark.parametrize("model", MODELS)
def test_responses(stack: Stack, model: str) -> None:
    responses_say_what_chat_says(stack, model)


@pytest.mark.parametrize("model", MODELS)
def test_messages(stack: Stack, model: str) -> None:
    messages_say_what_chat_says(stack, model)


@pytest.mark.parametrize("model", MODELS)
def test_reasons(stack: Stack, model: str) -> None:
    answers_end_for_the_same_reasons(stack, model)


@pytest.mark.parametrize("model", ["house-chat", "house-chat+sailor", "depot-chat", "yard-chat"])
def test_tokens_are_known_before_the_first_one(stack: Stack, model: str) -> None:
    """The count, the stream's first event and chat's usage agree."""
    client = anthropic_client(stack).messages
    system = "You are a helpful assistant."
    chat = chat_of(stack, model, [{"role": "system", "content": system}, *ASK], max_tokens=4)
    counted = client.count_tokens(model=model, system=system, messages=ASK)
    assert counted.input_tokens == chat.usage.prompt_tokens
    stream = client.create(model=model, system=system, messages=ASK, max_tokens=4, stream=True)
    first = next(iter(stream))
    assert first.type == "message_start"
    assert first.message.usage.input_tokens == chat.usage.prompt_tokens


def test_a_response_is_openais(stack: Stack) -> None:
    """Every byte of it; what was asked is echoed, and nothing is kept."""
    answer = stack.client().responses.with_raw_response.create(
        model="house-chat", input=QUESTION, instructions="Be brief.", metadata={"a": "b"}, max_output_tokens=8
    )
    body = answer.http_response.json()
    validate("Response", body)
    assert body["instructions"] == "Be brief."
    assert (body["metadata"], body["store"]) == ({"a": "b"}, False)
    assert answer.headers["x-request-id"] in body["id"]


def test_responses_errors_are_openais(stack: Stack) -> None:
    client = stack.client().responses
    with pytest.raises(openai.NotFoundError) as missing:
        client.create(model="house-cat", input="Hi")
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as kept:
        client.create(model="house-chat", input="Hi", previous_response_id="resp_1")
    assert kept.value.param == "previous_response_id"
    with pytest.raises(openai.BadRequestError) as long:
        client.create(model="house-chat", input="engine " * 5000)
    assert (long.value.code, long.value.param) == ("context_length_exceeded", "input")
    assert "messages" not in long.value.message
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=stack.base_url, api_key="eh-wrong", max_retries=0).responses.create(
            model="house-chat", input="Hi"
        )


def test_messages_errors_are_anthropics(stack: Stack) -> None:
    """The SDK raises its own classes, for what the gateway refuses before and after it knows the path."""
    client = anthropic_client(stack).messages
    with pytest.raises(anthropic.NotFoundError) as missing:
        client.create(model="house-cat", messages=ASK, max_tokens=4)
    assert missing.value.body["error"]["type"] == "not_found_error"  # type: ignore[index]
    assert missing.value.request_id
    with pytest.raises(anthropic.BadRequestError) as image:
        client.create(
            model="house-chat",
            max_tokens=4,
            messages=[
                {
                    "role": "user",
                    "content": [
                        {"type": "image", "source": {"type": "url", "url": "http://x.example/a.png"}}
                    ],
                }
            ],
        )
    assert "messages[0].content[0].type" in image.value.message
    with pytest.raises(anthropic.BadRequestError) as long:
        client.create(
            model="house-chat", max_tokens=4, messages=[{"role": "user", "content": "engine " * 5000}]
        )
    assert long.value.body["error"]["type"] == "invalid_request_error"  # type: ignore[index]
    for wrong in (client.create, client.count_tokens):
        with pytest.raises(anthropic.BadRequestError):
            wrong(model="house-chat", messages=[], **({"max_tokens": 4} if wrong == client.create else {}))  # type: ignore[operator]
    denied = anthropic_client(stack, "eh-wrong").messages
    with pytest.raises(anthropic.AuthenticationError) as unknown:
        denied.create(model="house-chat", messages=ASK, max_tokens=4)
    assert unknown.value.body["error"]["type"] == "authentication_error"  # type: ignore[index]
    with pytest.raises(anthropic.AuthenticationError):
        denied.count_tokens(model="house-chat", messages=ASK)


def test_a_key_may_come_as_a_bearer(stack: Stack) -> None:
    """As the SDK sends what it calls an auth token."""
    bearer = anthropic.Anthropic(base_url=stack.origin, auth_token=stack.key, max_retries=0)
    assert bearer.messages.create(model="house-chat", messages=ASK, max_tokens=4).content


async def test_bad_http_on_these_paths(stack: Stack) -> None:
    """Wrong methods, and heads and bodies that nobody takes, in the API's shape."""
    async with aiohttp.ClientSession(headers={"x-api-key": stack.key}) as session:
        async with session.get(f"{stack.base_url}/messages") as answer:
            assert answer.status == 405
            assert (await answer.json())["error"]["type"] == "invalid_request_error"
        async with session.post(f"{stack.base_url}/messages/nowhere") as answer:
            assert answer.status == 404
            assert (await answer.json())["error"]["type"] == "not_found_error"
        for path in ("messages", "messages/count_tokens"):
            async with session.post(f"{stack.base_url}/{path}", data=b" " * 9_000_000) as answer:
                assert answer.status == 413
                assert (await answer.json())["error"]["type"] == "request_too_large"
        async with session.get(f"{stack.base_url}/models") as answer:
            assert answer.status == 200
        async with session.get(f"{stack.origin}/healthz", headers={"x-long": "x" * 40_000}) as answer:
            assert answer.status == 400
            validate("ErrorResponse", await answer.json())


async def left_mid_stream(session: aiohttp.ClientSession, stack: Stack) -> int:
    """Streams whose clients left, as the gateway counts them."""
    async with session.get(f"{stack.origin}/metrics") as answer:
        lines = (await answer.text()).splitlines()
    counted = [line for line in lines if line.startswith('enginehouse_cancellations_total{phase="stream"')]
    return int(sum(float(line.rpartition(" ")[2]) for line in counted))


@pytest.mark.parametrize("path", ["responses", "messages"])
async def test_a_client_leaving_mid_stream_frees_its_slot(stack: Stack, path: str) -> None:
    """Answers may end by themselves meanwhile; at least one of these did not, and its slot is free."""
    body: dict[str, Any] = {"model": "house-chat", "stream": True, "temperature": 1.0}
    story = "Tell me a long story of engines and trains, with every detail."
    if path == "responses":
        body |= {"input": story, "max_output_tokens": 1500}
    else:
        body |= {"messages": [{"role": "user", "content": story}], "max_tokens": 1500}
    async with aiohttp.ClientSession(headers=stack.headers) as session:
        await until_active(session, stack, 0, 20)
        before = await left_mid_stream(session, stack)
        deadline = asyncio.get_running_loop().time() + 30
        while await left_mid_stream(session, stack) == before:
            assert asyncio.get_running_loop().time() < deadline
            answer = await session.post(f"{stack.base_url}/{path}", json=body)
            assert (await answer.content.readline()).startswith(b"event: ")
            answer.close()
        await until_active(session, stack, 0, 20)
