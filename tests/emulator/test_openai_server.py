"""The small OpenAI-HTTP server over the CPU engine."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient, TestServer

from emulator.openai_server import ServedModel, create_app
from tests.emulator.triton.small_model import write_small_model

CHAT = {
    "model": "house",
    "messages": [{"role": "user", "content": "the engine house"}],
    "max_tokens": 12,
    "seed": 1,
}
TEXT = {"model": "house", "prompt": "the engine house", "max_tokens": 12, "seed": 1}


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def model(model_dir: Path) -> ServedModel:
    return ServedModel.load("house", model_dir)


@pytest.fixture
async def client(model: ServedModel) -> AsyncIterator[TestClient[Any, Any]]:
    async with TestClient(TestServer(create_app([model])), raise_for_status=False) as client:
        yield client


async def _events(response: ClientResponse) -> list[Any]:
    lines = [line.removeprefix(b"data: ") async for line in response.content if line.startswith(b"data: ")]
    return [line.strip().decode() if line.startswith(b"[") else json.loads(line) for line in lines]


async def test_streamed_and_whole_answers_are_the_same_text(client: TestClient[Any, Any]) -> None:
    whole = await (await client.post("/v1/chat/completions", json=CHAT)).json()
    streaming = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
    seen = await _events(await client.post("/v1/chat/completions", json=streaming))
    assert seen.pop() == "[DONE]"
    usage = seen.pop()["usage"]
    text = "".join(event["choices"][0]["delta"].get("content", "") for event in seen)
    assert text == whole["choices"][0]["message"]["content"]
    assert usage == whole["usage"]
    assert seen[-1]["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]


async def test_usage_is_what_the_tokenizer_counts(client: TestClient[Any, Any], model: ServedModel) -> None:
    answer = await (await client.post("/v1/completions", json=TEXT)).json()
    assert answer["usage"]["prompt_tokens"] == len(model.tokenizer.encode(TEXT["prompt"]))
    assert answer["usage"]["completion_tokens"] <= 12
    assert answer["usage"]["total_tokens"] == sum(
        answer["usage"][key] for key in ("prompt_tokens", "completion_tokens")
    )


async def test_a_stop_string_is_left_out_and_ends_the_answer(client: TestClient[Any, Any]) -> None:
    body = {**TEXT, "max_tokens": 40}
    text = (await (await client.post("/v1/completions", json=body)).json())["choices"][0]["text"]
    stop = text[6:8]
    for stream in (False, True):
        response = await client.post("/v1/completions", json={**body, "stop": stop, "stream": stream})
        choices = [event["choices"][0] for event in (await _events(response))[:-1]] if stream else []
        choices = choices or [(await response.json())["choices"][0]]
        assert "".join(choice["text"] for choice in choices) == text[: text.index(stop)]
        assert choices[-1]["finish_reason"] == "stop"


async def test_n_choices_differ_and_repeat_with_their_seed(client: TestClient[Any, Any]) -> None:
    answers = [
        [
            choice["text"]
            for choice in (await (await client.post("/v1/completions", json={**TEXT, "n": 3})).json())[
                "choices"
            ]
        ]
        for _ in range(2)
    ]
    assert answers[0] == answers[1]
    assert len(set(answers[0])) == 3


async def test_a_client_that_leaves_frees_the_engine(
    client: TestClient[Any, Any], model: ServedModel
) -> None:
    body = {**TEXT, "max_tokens": 1500, "stream": True, "fault": "slow:10"}
    response = await client.post("/v1/completions", json=body)
    await response.content.readany()
    assert model.engine.stats().active_requests == 1
    response.close()
    async with asyncio.timeout(3):
        while model.engine.stats().active_requests:  # noqa: ASYNC110 - the engine tells nobody
            await asyncio.sleep(0.01)
    assert model.engine.stats().total_cancelled == 1


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"model": "other"}, 404, "does not exist"),
        ({"model": "house", "messages": []}, 400, "messages"),
        ({**CHAT, "temperature": "warm"}, 400, "wrong type"),
        ({**CHAT, "temperature": -1}, 400, "temperature"),
        (
            {**CHAT, "messages": [{"role": "user", "content": "engine " * 4000}], "stream": True},
            400,
            "exceeds maximum",
        ),
        ([], 400, "object"),
    ],
)
async def test_bad_requests_are_refused_in_openais_shape(
    client: TestClient[Any, Any], body: Any, status: int, message: str
) -> None:
    response = await client.post("/v1/chat/completions", json=body)
    assert response.status == status
    assert message in (await response.json())["error"]["message"]


async def test_a_broken_stream_ends_without_done(model_dir: Path, tmp_path: Path) -> None:
    switch = tmp_path / "fault.json"
    switch.write_text(json.dumps({"fault": "error", "after_tokens": 8}))
    model = ServedModel.load("house", model_dir, fault_file=switch)
    async with TestClient(TestServer(create_app([model]))) as client:
        seen = await _events(await client.post("/v1/completions", json={**TEXT, "stream": True}))
    assert "choices" in seen[0]
    assert "injected fault" in seen[-1]["error"]["message"]


async def test_the_command_serves_several_models_until_it_is_told_to_end(
    model_dir: Path, tmp_path: Path
) -> None:
    ready = tmp_path / "ready.json"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "emulator.openai_server",
        *("--model-dir", str(model_dir), "--name", "one", "--model-dir", str(model_dir), "--name", "two"),
        *("--port", "0", "--ready-file", str(ready)),
    )
    try:
        async with asyncio.timeout(20):
            while not ready.exists():  # noqa: ASYNC110 - written by another process
                await asyncio.sleep(0.02)
        assert json.loads(ready.read_text())["models"] == ["one", "two"]
    finally:
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
