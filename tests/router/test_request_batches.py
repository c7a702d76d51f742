"""Joining embedding inputs, over real sockets: what waits, what goes together, what fails alone."""

from __future__ import annotations

import asyncio
import json
from array import array
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from inference.adapters import Adapters
from inference.client import ModelClients
from inference.errors import PromptTooLongError
from inference.push_http import Timeouts
from inference.request import EmbeddingInput
from inference.schema import Schema, Tensor
from model_registry.entities import Endpoint, Model
from model_registry.snapshot import Snapshot
from router.attempts import Router
from router.batch_choice import choose
from router.config import EmbeddingBatches, RouterConfig
from router.errors import AttemptsExhaustedError
from router.profiles import Wish
from router.request_batches import EMBEDDING_LANES, Embedded, RequestBatches
from telemetry.config import TelemetryConfig
from telemetry.request_trace import RequestTrace
from telemetry.tracing import Tracing
from tenancy.policy import Selection

MODEL = Model(name="m", context_length=1000, modality="embedding")
POISON, FATAL = 666, 667
SCHEMA = Schema(
    lane="encoder",
    target="enc",
    inputs={name: Tensor("INT32", (-1, -1)) for name in ("input_ids", "attention_mask")},
    outputs={"v": Tensor("FP32", (-1, 2))},
    max_batch_size=8,
    vectors="v",
    dimensions=2,
)


class Encoder:
    """A server whose vectors are (first id, count of ids); it waits at `gate`, and chokes on two ids."""

    def __init__(self) -> None:
        self.calls: list[list[list[int]]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.arrived = asyncio.Semaphore(0)
        self.left = 0
        self.runner = web.ServerRunner(web.Server(self._handle, handler_cancellation=True))

    async def start(self) -> str:
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0)
        await site.start()
        host, port = self.runner.addresses[0][:2]
        return f"http://{host}:{port}"

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        head = int(request.headers["Inference-Header-Content-Length"])
        rows = _rows(json.loads(body[:head]), body[head:])
        self.calls.append(rows)
        self.arrived.release()
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.left += 1
            raise
        if any(POISON in row for row in rows):
            return web.json_response(
                {"error": "Prompt length (9) exceeds maximum input length (5)"}, status=400
            )
        if any(FATAL in row for row in rows):
            return web.json_response({"error": "CUDA error"}, status=500)
        return _answer(rows)


def _rows(header: dict[str, Any], contents: bytes) -> list[list[int]]:
    count, width = header["inputs"][0]["shape"]
    ids = array("i", contents[: 4 * count * width]).tolist()
    mask = array("i", contents[4 * count * width :]).tolist()
    return [
        [token for token, kept in zip(ids[at : at + width], mask[at : at + width], strict=True) if kept]
        for at in range(0, count * width, width)
    ]


def _answer(rows: list[list[int]]) -> web.Response:
    raw = array("f", (value for row in rows for value in (row[0], len(row)))).tobytes()
    output = {"name": "v", "datatype": "FP32", "shape": [len(rows), 2]}
    header = json.dumps({"outputs": [{**output, "parameters": {"binary_data_size": len(raw)}}]}).encode()
    return web.Response(body=header + raw, headers={"Inference-Header-Content-Length": str(len(header))})


class Nobody:
    """Counts attempts by their outcome."""

    def __init__(self) -> None:
        self.outcomes: list[str] = []

    def attempt(self, endpoint: Endpoint, outcome: str) -> None:
        self.outcomes.append(outcome)

    def retried(self, wish: Wish) -> None: ...

    def continued(self, wish: Wish) -> None: ...

    def first_token(self, wish: Wish, *, late: bool) -> None: ...


class Fleet:
    """One encoder behind the router's joining."""

    def __init__(self, encoder: Encoder, url: str, config: RouterConfig) -> None:
        self.encoder = encoder
        self.seen = Nobody()
        self.clients = ModelClients(Timeouts())
        endpoint = Endpoint(
            name="e", deployment="d", model="m", profile="balanced", lane="encoder", target="enc", http=url,
            state="ready", server_schema=SCHEMA.as_dict(),
        )  # fmt: skip
        snapshot = Snapshot.of(1, [MODEL, endpoint])
        self.router = Router(config, self.clients, lambda: snapshot, self.seen, Adapters(0))
        self.batches = RequestBatches(self.router)
        self.tracing = Tracing(TelemetryConfig())

    def trace(self) -> RequestTrace:
        return self.tracing.begin(None, None)

    async def embed(self, *rows: list[int], selection: Selection | None = None) -> Embedded:
        wish = Wish(MODEL, "balanced", "default")
        inputs = [EmbeddingInput(row) for row in rows]
        return await self.batches.embed(wish, inputs, self.trace(), EMBEDDING_LANES, selection)


@pytest.fixture
async def encoder() -> AsyncIterator[Encoder]:
    encoder = Encoder()
    yield encoder
    encoder.gate.set()
    await encoder.runner.cleanup()


@pytest.fixture
async def fleet(encoder: Encoder) -> AsyncIterator[Fleet]:
    config = RouterConfig(embeddings=EmbeddingBatches(calls_per_endpoint=1, max_tokens=100))
    fleet = Fleet(encoder, await encoder.start(), config)
    yield fleet
    await fleet.clients.close()
    fleet.tracing.close()
    assert fleet.router.ledger.in_flight() == 0
    assert not fleet.batches._queues


def values(embedded: Embedded) -> list[tuple[float, ...]]:
    return [tuple(array("f", vector)) for vector in embedded.vectors]


async def test_idle_sends_at_once_and_busy_joins(fleet: Fleet) -> None:
    """While the first call is under way five more requests come; they are one call."""
    fleet.encoder.gate.clear()
    first = asyncio.create_task(fleet.embed([1]))
    await fleet.encoder.arrived.acquire()
    others = [asyncio.create_task(fleet.embed([n], [n, n])) for n in range(2, 6)]
    await asyncio.sleep(0)
    fleet.encoder.gate.set()
    assert values(await first) == [(1, 1)]
    for n, one in enumerate(await asyncio.gather(*others), start=2):
        assert values(one) == [(n, 1), (n, 2)]
        assert [end.endpoint.name for end in one.finished] == ["e"]
    assert [len(call) for call in fleet.encoder.calls] == [1, 8]


async def test_a_large_request_is_cut_by_the_servers_batch_size(fleet: Fleet) -> None:
    embedded = await fleet.embed(*[[n] for n in range(1, 21)])
    assert values(embedded) == [(n, 1) for n in range(1, 21)]
    assert sorted(len(call) for call in fleet.encoder.calls) == [4, 8, 8]
    assert len(embedded.finished) == 3


@pytest.mark.parametrize("bad", [POISON, FATAL])
async def test_one_bad_input_fails_its_own_request_alone(fleet: Fleet, bad: int) -> None:
    """Whether the server calls it wrong or breaks on it."""
    fleet.encoder.gate.clear()
    first = asyncio.create_task(fleet.embed([1]))
    await fleet.encoder.arrived.acquire()
    good = [asyncio.create_task(fleet.embed([n])) for n in range(2, 7)]
    culprit = asyncio.create_task(fleet.embed([9], [bad]))
    await asyncio.sleep(0)
    fleet.encoder.gate.set()
    await first
    assert [values(one) for one in await asyncio.gather(*good)] == [[(n, 1)] for n in range(2, 7)]
    with pytest.raises(PromptTooLongError if bad == POISON else AttemptsExhaustedError):
        await culprit
    load = fleet.router.ledger.of("e")
    assert load.breaker.opened_at_s is None


async def test_a_server_that_fails_on_everything_is_not_asked_for_every_input(fleet: Fleet) -> None:
    with pytest.raises(AttemptsExhaustedError):
        await fleet.embed(*[[FATAL]] * 8)
    assert len(fleet.encoder.calls) < 30


async def test_a_request_that_leaves_takes_its_inputs_out(fleet: Fleet) -> None:
    fleet.encoder.gate.clear()
    first = asyncio.create_task(fleet.embed([1]))
    await fleet.encoder.arrived.acquire()
    leaving = asyncio.create_task(fleet.embed([2], [2, 2]))
    staying = asyncio.create_task(fleet.embed([3]))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    fleet.encoder.gate.set()
    await first
    assert values(await staying) == [(3, 1)]
    assert fleet.encoder.calls == [[[1]], [[3]]]


async def test_a_call_that_nobody_waits_for_is_cancelled_and_the_next_one_goes(fleet: Fleet) -> None:
    """One that somebody else waits for is not."""
    fleet.encoder.gate.clear()
    first = asyncio.create_task(fleet.embed([1]))
    await fleet.encoder.arrived.acquire()
    second = asyncio.create_task(fleet.embed([2]))
    third = asyncio.create_task(fleet.embed([3]))
    await asyncio.sleep(0)
    first.cancel()
    await fleet.encoder.arrived.acquire()
    assert sorted(fleet.encoder.calls[1]) == [[2], [3]]
    second.cancel()
    await asyncio.gather(first, second, return_exceptions=True)
    fleet.encoder.gate.set()
    assert values(await third) == [(3, 1)]
    assert "cancelled" in fleet.seen.outcomes


async def test_every_joined_request_has_the_attempt_in_its_trace(fleet: Fleet) -> None:
    fleet.encoder.gate.clear()
    first = asyncio.create_task(fleet.embed([1]))
    await fleet.encoder.arrived.acquire()
    traces = [fleet.trace() for _ in range(3)]
    wish = Wish(MODEL, "balanced", "default")
    joined = [
        asyncio.create_task(fleet.batches.embed(wish, [EmbeddingInput([n])], trace, EMBEDDING_LANES))
        for n, trace in enumerate(traces, start=2)
    ]
    await asyncio.sleep(0)
    fleet.encoder.gate.set()
    await asyncio.gather(first, *joined)
    for trace in traces:
        assert [attempt.endpoint for attempt in trace.attempts] == ["e"]
        assert trace.attempts[0].answered_ns is not None
        assert len(trace.routes) == 1


# Which go together


def test_neighbours_in_length_go_together() -> None:
    """The first one, which is long, takes the long ones along."""
    assert choose([50, 1, 2, 49, 3, 48], 3, 1000) == [5, 3, 0]
    assert choose([1, 50, 2, 49, 3], 3, 1000) == [0, 2, 4]


def test_padding_counts() -> None:
    """Two of ten are as many as fit; one of thirty would make three times thirty."""
    assert choose([10, 10, 30], 8, 25) == [0, 1]
    assert choose([500, 1], 8, 100) == [0]


@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=40),
    most=st.integers(1, 10),
    tokens=st.integers(1, 300),
)
def test_the_first_is_always_among_them_and_the_limits_hold(
    lengths: list[int], most: int, tokens: int
) -> None:
    chosen = choose(lengths, most, tokens)
    assert 0 in chosen
    assert len(set(chosen)) == len(chosen) <= most
    assert len(chosen) == 1 or max(lengths[at] for at in chosen) * len(chosen) <= tokens


async def test_inputs_are_joined_with_those_of_the_same_selection_only(
    fleet: Fleet, encoder: Encoder
) -> None:
    mine, yours = Selection((("deployment", ("d",)),)), Selection((("endpoint", ("e",)),))
    encoder.gate.clear()
    asked = [asyncio.create_task(fleet.embed([1], selection=one)) for one in (mine, yours)]
    for _ in asked:
        await encoder.arrived.acquire()
    more = ((2, mine), (3, yours), (4, mine), (5, yours))
    asked += [asyncio.create_task(fleet.embed([n], selection=one)) for n, one in more]
    await asyncio.sleep(0)
    encoder.gate.set()
    await asyncio.gather(*asked)
    assert sorted(encoder.calls[2:]) == [[[2], [4]], [[3], [5]]]
