"""What an answered attempt tells: as it was seen here, and as its engine tells of itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from msgspec.structs import replace

from inference.adapters import Adapters
from inference.client import ModelClients
from inference.push_http import Timeouts
from inference.request import EngineTimes, InferenceRequest, Usage
from inference.schema import Schema, Tensor
from model_registry.entities import Deployment, Endpoint, Model, Scaling
from model_registry.snapshot import Snapshot
from router.attempts import Router
from router.config import RouterConfig
from router.demand import GroupCounts
from router.job import Job
from router.profiles import Wish
from router.timing import Timing, timed
from router.window import Limits, Window
from telemetry import names
from telemetry.config import TelemetryConfig
from telemetry.tracing import Tracing
from tests.router.two_engines import Collected, Observed

MODEL = Model(name="m", context_length=1000)
SCALED = Deployment(name="d", model="m", scaling=Scaling(pool="p", ttft_s=0.5, itl_s=0.004))
METRICS = {
    "arrival_time_ns": "INT64",
    "first_scheduled_time_ns": "INT64",
    "first_token_time_ns": "INT64",
    "last_token_time_ns": "INT64",
    "kv_cache_reused_blocks": "INT32",
}
SCHEMA = Schema(
    lane="tensorrt_llm",
    target="tensorrt_llm",
    inputs={
        name: Tensor("INT32", (-1, -1))
        for name in ("input_ids", "input_lengths", "request_output_len", "end_id")
    }
    | {name: Tensor("BOOL", (-1, 1)) for name in ("streaming", "return_perf_metrics")},
    outputs={"output_ids": Tensor("INT32", (-1, -1, -1)), "sequence_length": Tensor("INT32", (-1, -1))}
    | {name: Tensor(kind, (-1, 1)) for name, kind in METRICS.items()},
    decoupled=True,
    max_batch_size=8,
    tokens_per_block=32,
)
ENGINE = EngineTimes(3.0, 0.5, 0.02)
"""What the engine below says, whatever it takes."""


def told() -> dict[str, int]:
    at, found = 10**9, {"kv_cache_reused_blocks": 2, "arrival_time_ns": 10**9}
    parts = ENGINE.queue_s, ENGINE.prefill_s, ENGINE.decode_s
    for name, seconds in zip(("first_scheduled", "first_token", "last_token"), parts, strict=True):
        at += round(seconds * 1e9)
        found[f"{name}_time_ns"] = at
    return found


async def handle(request: web.BaseRequest) -> web.StreamResponse:
    asked = await request.json()
    assert asked["return_perf_metrics"] is True
    wanted = int(asked["request_output_len"])
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    events: list[dict[str, Any]] = [{"output_ids": n, "sequence_length": 1} for n in range(10, 10 + wanted)]
    if not asked["streaming"]:
        events = [{"output_ids": [n for one in events for n in [one["output_ids"]]]}]
    for event in [*events[:-1], {**events[-1], **told()}]:
        await response.write(f"data: {json.dumps({'model_name': 'x', **event})}\n\n".encode())
    return response


@pytest.fixture
async def router() -> AsyncIterator[Router]:
    runner = web.ServerRunner(web.Server(handle, handler_cancellation=True))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    endpoint = Endpoint(
        name="a", deployment="d", model="m", profile="balanced", lane="tensorrt_llm", target="tensorrt_llm",
        http=f"http://{host}:{port}", server_schema=SCHEMA.as_dict(), state="ready",
    )  # fmt: skip
    snapshot = Snapshot.of(1, [MODEL, SCALED, endpoint])
    clients = ModelClients(Timeouts(connect_s=1, first_byte_s=5, idle_s=5))
    yield Router(RouterConfig(), clients, lambda: snapshot, Observed(), Adapters(0))
    await clients.close()
    await runner.cleanup()


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_what_an_engine_tells_reaches_reports_forecasts_and_the_trace(
    router: Router, stream: bool
) -> None:
    """Of a whole answer nothing else could tell when its first token came, or how far apart tokens were."""
    trace = Tracing(TelemetryConfig()).begin(None, None)
    ids = [1] * 100
    request = InferenceRequest("r", "m", stream, 11, prompt_ids=ids, end_id=2)
    job = Job(request, Wish(MODEL, "balanced", "default"), 111, trace, output_tokens=11)
    router.demand.arrived("m", "balanced", 0)
    router.registry_changed()
    began_s = asyncio.get_running_loop().time()
    async with asyncio.timeout(10):
        await router.run(job, Collected(whole=not stream))
    took_s = asyncio.get_running_loop().time() - began_s
    group = router.demanded().groups["m:balanced"]
    assert (group.engine_timed, group.engine_queue_s, group.engine_prefill_s) == (1, 3.0, 0.5)
    assert (group.paced, group.itl_s, group.itl_missed) == (1, 0.002, 0), "by the engine's clock"
    assert (group.reused_tokens, group.reusable_tokens) == (64, 100)
    assert group.first_tokens == 1
    assert 0 <= group.ttft_s <= took_s + 1e-6
    learned = router.deciding.forecasts.of("a").learned(0.0)
    assert (learned.ttft_seen, learned.itl_seen) == (1, 1)
    assert trace.attempts[0].attributes == {
        names.ENGINE_QUEUE_S: 3.0,
        names.ENGINE_PREFILL_S: 0.5,
        names.ENGINE_DECODE_S: 0.02,
    }


def test_what_is_seen_stands_in_for_what_an_engine_does_not_tell() -> None:
    """A slow reader is not the engine's fault."""
    usage = Usage(100, 11, None)
    assert timed(usage, 0.0, 1.0, 3.0) == Timing(1.0, 0.2)
    assert timed(usage, 0.0, None, 3.0) == Timing()
    assert timed(Usage(100, None), 0.0, 1.0, 3.0) == Timing(1.0)
    telling = replace(usage, engine=EngineTimes(0.5, 0.25, 1.0))
    assert timed(telling, 0.0, 1.0, 9.0) == Timing(1.0, 0.1, telling.engine)
    assert timed(telling, 0.0, None, 3.0) == Timing(2.0, 0.1, telling.engine)
    assert timed(telling, 0.0, None, 3.0).unqueued_ttft_s == 1.5
    assert timed(telling, 2.5, None, 3.0).ttft_s == 0, "clocks may differ by more than it took"


def test_late_tokens_are_counted_by_the_deployments_target_or_else_the_profiles() -> None:
    group = GroupCounts()
    for target_s, missed in ((None, 1), (0.2, 1), (0.01, 2)):
        group.itl_target_s = target_s
        group.answered(Timing(itl_s=0.1), 0.05)
        assert group.itl_missed == missed
    group.answered(Timing(), 0.05)
    assert (group.paced, group.engine_timed) == (3, 0), "what is not known is not counted as good"


@pytest.mark.parametrize("tells", [True, False])
def test_a_wrong_forecast_does_not_shrink_a_window_that_is_always_full(tells: bool) -> None:
    """Its engine says that nothing queued there; without that, slow first tokens look like a queue."""
    window = Window(Limits(64))
    for _ in range(200):
        window.learn(0.5, 0.1, requests=64)
        if tells:
            window.unqueued(0.5, 0.1)
    assert (window.limit == 64) is tells


def test_a_window_still_shrinks_for_what_queues_at_the_engine() -> None:
    window = Window(Limits(64))
    for _ in range(200):
        window.learn(3.0, 0.1, requests=window.limit)
        window.unqueued(0.1, 0.1)
    assert window.limit <= 12
