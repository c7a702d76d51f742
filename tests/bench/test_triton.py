"""The stub passes for a real Triton, and the benchmark's model runs in one."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import bodies, load, triton_schema
from bench.__main__ import stub_options
from bench.gateway_under_test import TRITON_MODEL
from bench.load import Bodies, Target
from bench.processes import Cores
from bench.stub import Stub
from bench.triton import real_triton


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("triton")
    with real_triton(Cores.of_this_machine(), folder, TRITON_MODEL) as running:
        yield running.http_url


@pytest.fixture
def stub(tmp_path: Path) -> Iterator[Stub]:
    started = Stub(Cores.of_this_machine().load, tmp_path / "log", [*stub_options(tmp_path)])
    started.pace(interval_us=0)
    yield started
    started.close()


def events(url: str, *, stream: bool) -> list[list[tuple[str, int]]]:
    """Names in order and number of values, event by event."""
    body = json.dumps(bodies.tensorrt_llm(stream, 3) | {"id": "one"}).encode()
    path = f"{url}/v2/models/{TRITON_MODEL}/generate_stream"
    with urllib.request.urlopen(urllib.request.Request(path, body), timeout=20) as answer:
        assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        text = answer.read().decode()
    *whole, rest = text.split("\n\n")
    assert rest == ""
    found = [json.loads(event.removeprefix("data: ")) for event in whole]
    return [[(name, len(v) if isinstance(v, list) else 1) for name, v in event.items()] for event in found]


@pytest.mark.parametrize("stream", [True, False])
def test_the_stub_answers_as_triton_does(triton: str, stub: Stub, stream: bool) -> None:
    assert events(stub.url, stream=stream) == events(triton, stream=stream)
    assert len(events(triton, stream=stream)) == (3 if stream else 1)


def test_the_stub_describes_its_model_as_triton_does(triton: str, stub: Stub) -> None:
    path = f"/v2/models/{TRITON_MODEL}"
    described = []
    for url in (triton, stub.url):
        with urllib.request.urlopen(url + path, timeout=20) as answer:
            described.append(json.load(answer))
    assert described[0] == described[1] == triton_schema.metadata(TRITON_MODEL)


def test_tokens_of_a_real_triton_tell_their_time(triton: str, tmp_path: Path) -> None:
    port = int(triton.rsplit(":", 1)[1])
    path = f"/v2/models/{TRITON_MODEL}/generate_stream"
    target = Target(port, path, Bodies(tmp_path, bodies.tensorrt_llm), "id")
    result = load.run(Cores.of_this_machine().load, target, "streams", 20, "-c", 4, "--rounds", 1)
    assert (result["streams_ok"], result["tokens"]) == (4, 80)
    assert result["transit_ms"]["p50"] < 1000
