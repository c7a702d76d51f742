"""The stub and the load generator count alike, and notice what goes wrong."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from bench import bodies, load, tokenizer
from bench.__main__ import stub_options
from bench.load import Bodies, Target
from bench.processes import Cores
from bench.stub import Stub


def chat(stub: Stub, folder: Path, path: str = "/v1/chat/completions") -> Target:
    return Target(
        stub.port, path, Bodies(folder, lambda stream, tokens: bodies.chat("stub", stream, tokens)), "ns"
    )


def generate(stub: Stub, folder: Path) -> Target:
    return Target(stub.port, "/v2/models/m/generate_stream", Bodies(folder, bodies.tensorrt_llm), "id")


def ask(stub: Stub, path: str, body: dict[str, Any]) -> str:
    request = urllib.request.Request(stub.url + path, json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=5) as answer:
        text: str = answer.read().decode()
    return text


@pytest.mark.parametrize("target", [chat, generate])
def test_every_token_that_is_made_is_counted(target: Any, cores: Cores, tmp_path: Path) -> None:
    stub = Stub(cores.load, tmp_path / "stub.log", stub_options(tmp_path))
    stub.pace(interval_us=500)
    result = load.run(cores.load, target(stub, tmp_path), "streams", 7, "-c", 5, "--rounds", 2)
    counters = stub.counters()
    stub.close()
    assert (result["streams_ok"], result["tokens"]) == (10, 70)
    assert (counters["streams"], counters["tokens"], counters["aborted"]) == (10, 70, 0)
    assert 0 <= result["transit_ms"]["p50"] < 1000


def test_a_stream_that_lacks_tokens_is_a_failure(stub: Stub, cores: Cores, tmp_path: Path) -> None:
    short = Bodies(tmp_path, lambda stream, _: bodies.chat("stub", stream, 6))
    stub.pace(interval_us=500)
    target = Target(stub.port, "/v1/chat/completions", short)
    result = load.run(cores.load, target, "streams", 7, "-c", 3, "--rounds", 1)
    assert (result["failed"]["short"], result["streams_ok"]) == (3, 0)


def test_a_wrong_status_is_a_failure(stub: Stub, cores: Cores, tmp_path: Path) -> None:
    result = load.run(
        cores.load, chat(stub, tmp_path, "/v1/nothing"), "requests", 1, "-c", 2, "-w", 0, "-d", 0.1
    )
    assert result["failed"]["status"] > 0
    assert result["failed"]["last_status"] == 404
    assert result["answers"] == 0


def test_vanished_clients_are_seen(stub: Stub, cores: Cores, tmp_path: Path) -> None:
    stub.pace(interval_us=1000)
    left = load.run(cores.load, chat(stub, tmp_path), "leave", 100_000, "-c", 8)
    seen = stub.wait_for_active(0, timeout_s=10)
    assert seen["aborted"] == 8
    assert seen["last_end_ns"] > left["closed_at_ns"] - 1_000_000_000


async def test_every_request_has_a_number_of_its_own(cores: Cores, tmp_path: Path) -> None:
    """In its last message and of constant length; whatever else is asked repeats."""
    seen: list[bytes] = []

    async def chat_of(request: web.Request) -> web.Response:
        seen.append(await request.read())
        return web.json_response({})

    app = web.Application()
    app.router.add_post("/v1/chat/completions", chat_of)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    target = Target(
        port, "/v1/chat/completions", Bodies(tmp_path, lambda stream, n: bodies.chat("m", stream, n))
    )
    options = ("-c", 5, "-w", 0, "-d", 0.2)
    results = [await asyncio.to_thread(load.run, cores.load, target, "requests", 1, *options) for _ in "ab"]
    await runner.cleanup()
    assert all(result["answers"] > 5 for result in results)
    asked = [json.loads(body)["messages"] for body in seen]
    before, after = bodies.QUESTION.split(bodies.NUMBER)
    numbers = [messages[-1]["content"].removeprefix(before).removesuffix(after) for messages in asked]
    assert all(len(number) == 16 and number.isdigit() for number in numbers)
    assert len(set(numbers)) == len(numbers)
    assert all(messages[:-1] == bodies.MESSAGES[:-1] for messages in asked)


def test_usage_comes_as_asked(stub: Stub) -> None:
    stub.pace(interval_us=0)
    plain = json.loads(ask(stub, "/v1/chat/completions", bodies.chat("stub", False, 9)))
    assert plain["usage"] == {"prompt_tokens": 200, "completion_tokens": 9, "total_tokens": 209}
    streamed = bodies.chat("stub", True, 9)
    assert "usage" not in ask(stub, "/v1/chat/completions", streamed)
    with_usage = ask(stub, "/v1/chat/completions", streamed | {"stream_options": {"include_usage": True}})
    *_, last, done, _ = with_usage.split("\n\n")
    assert done == "data: [DONE]"
    assert json.loads(last.removeprefix("data: "))["usage"] == plain["usage"]


def test_generate_answers_as_triton_does(stub: Stub) -> None:
    """One id is a scalar and several are a list, as Triton's generate extension unwraps tensors."""
    stub.pace(interval_us=0)
    events = ask(stub, "/v2/models/m/generate_stream", bodies.tensorrt_llm(stream=True, tokens=2)).split(
        "\n\n"
    )
    first = json.loads(events[0].removeprefix("data: "))
    assert isinstance(first["output_ids"], int)
    assert "id" not in first
    assert first["sequence_length"] == 1
    assert len(events) == 3
    named = ask(stub, "/v2/models/m/generate", bodies.tensorrt_llm(stream=False, tokens=1) | {"id": "a-1"})
    assert json.loads(named)["id"] == "a-1"
    whole = json.loads(ask(stub, "/v2/models/m/generate", bodies.tensorrt_llm(stream=False, tokens=4)))
    assert len(whole["output_ids"]) == whole["sequence_length"] == 4


def test_ids_are_of_the_vocabulary(cores: Cores, tmp_path: Path) -> None:
    stub = Stub(cores.load, tmp_path / "stub.log", stub_options(tmp_path))
    named = ask(stub, "/v2/models/m/generate", bodies.tensorrt_llm(stream=False, tokens=1) | {"id": "a-1"})
    assert json.loads(named)["id"] == "a-1"
    whole = json.loads(ask(stub, "/v2/models/m/generate", bodies.tensorrt_llm(stream=False, tokens=50)))
    stub.close()
    limit = tokenizer.ID_BASE + tokenizer.ID_COUNT
    assert all(tokenizer.ID_BASE <= token < limit for token in whole["output_ids"])
