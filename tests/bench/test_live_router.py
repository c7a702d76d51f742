"""The live campaign: what it compares is alike, and a missing token or a wrong order shows."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import psutil
import pytest
from aiohttp import web

from bench.live_router.callers import Caller, wrongs
from bench.live_router.engines import BLOCK_TOKENS, CARD, WORD, repository
from bench.live_router.fleet import Fleet
from bench.live_router.ranking import kendall_tau
from bench.live_router.workload import conversations, trace
from emulator.engine import (
    Engine,
    EngineLimits,
    EngineOutput,
    EngineRequest,
    Pacing,
    SamplingParams,
    StepLoad,
    Weights,
)
from emulator.engine.tokenizer import EngineTokenizer
from enginehouse.local.triton_environment import check_triton

GREEDY = SamplingParams(temperature=0)
DECISION = "endpoint=e1@h:1; policy=product; reason=profile; attempts=1"


@pytest.mark.parametrize(
    ("other", "tau"),
    [([1, 2, 3, 4], 1.0), ([2, 1, 3, 4], 2 / 3), ([4, 3, 2, 1], -1.0), ([1, 1, 3, 4], 2 / 3)],
)
def test_tau_counts_pairs_in_the_same_order(other: list[float], tau: float) -> None:
    """A tie on one side agrees with nothing."""
    assert kendall_tau([0.1, 0.2, 0.3, 0.4], other) == pytest.approx(tau)


def test_conversations_grow_and_share_what_they_begin_with() -> None:
    turns = conversations(20.0, 5.0, seed=3, nonce=0)
    again, unlike = (conversations(20.0, 5.0, seed=3, nonce=nonce) for nonce in (0, 1))
    assert turns == again
    assert [(one.at_s, len(one.prompt_ids)) for one in turns] == [
        (one.at_s, len(one.prompt_ids)) for one in unlike
    ]
    assert not {one.prompt_ids[:BLOCK_TOKENS] for one in turns} & {
        one.prompt_ids[:BLOCK_TOKENS] for one in unlike
    }
    replayed = trace(turns)
    for one, request in zip(turns, replayed.requests, strict=True):
        for other, another in zip(turns, replayed.requests, strict=True):
            depth = min(len(request.blocks), len(another.blocks))
            same = [request.blocks[n] == another.blocks[n] for n in range(depth)]
            ends = [BLOCK_TOKENS * (n + 1) for n in range(depth)]
            assert same == [one.prompt_ids[:end] == other.prompt_ids[:end] for end in ends]


def test_engines_keep_the_time_of_the_card_that_replay_has(tmp_path: Path) -> None:
    repository(tmp_path)
    pacing = Pacing.load(tmp_path / "pacing.json")
    assert pacing is not None
    for prompt, decoding in ((0, 1), (40, 3), (200, 8), (256, 0)):
        load = StepLoad(prompt, prompt * 100, decoding, 5000)
        assert pacing.step_s(load) == pytest.approx(CARD.step_s(prompt + decoding, prompt * 100, 5000))


def test_every_token_of_an_engine_is_the_word(tmp_path: Path) -> None:
    repository(tmp_path)
    weights = tmp_path / "weights"
    engine = Engine(Weights.load(weights), EngineLimits())
    said: list[int] = []
    ended = asyncio.Event()
    loop = asyncio.new_event_loop()

    def take(output: EngineOutput) -> None:
        said.extend(output.token_ids)
        if output.final:
            loop.call_soon_threadsafe(ended.set)

    engine.start()
    engine.submit(EngineRequest("r", tuple(range(300, 500)), 5, sampling=GREEDY), take)
    loop.run_until_complete(asyncio.wait_for(ended.wait(), 30))
    engine.close()
    loop.close()
    assert EngineTokenizer(weights).decode(said) == 5 * WORD


class Gateway:
    """Answers every completion with what a test says."""

    def __init__(self) -> None:
        self.status = 200
        self.events: list[object] = []

    async def completions(self, _request: web.Request) -> web.StreamResponse:
        if self.status != 200:
            return web.json_response({"error": {}}, status=self.status)
        lines = "".join(f"data: {web.json_response(one).text}\n\n" for one in self.events)
        return web.Response(
            text=lines + "data: [DONE]\n\n",
            headers={"x-enginehouse-decision": DECISION},
            content_type="text/event-stream",
        )


@pytest.fixture
async def answering(tmp_path: Path) -> AsyncIterator[tuple[Gateway, Caller]]:
    gateway, app = Gateway(), web.Application()
    app.router.add_post("/v1/completions", gateway.completions)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    async with aiohttp.ClientSession() as session:
        fleet = Fleet(tmp_path, session)
        fleet.gateways = 3 * [f"http://127.0.0.1:{runner.addresses[0][1]}"]
        fleet.keys = {"house": "k"}
        yield gateway, Caller(fleet, "house")
    await runner.cleanup()


def events(tokens: int, usage: int) -> list[object]:
    """Of an answer."""
    choices = [{"text": WORD, "finish_reason": None}] * tokens + [{"text": "", "finish_reason": "length"}]
    return [
        *({"choices": [one]} for one in choices),
        {"choices": [], "usage": {"completion_tokens": usage}},
    ]


async def test_a_whole_answer_is_timed_and_tells_where_it_came_from(
    answering: tuple[Gateway, Caller],
) -> None:
    gateway, caller = answering
    gateway.events = events(3, 3)
    outcome = await caller.ask((300,), 3)
    assert (outcome.wrong, outcome.deployment, outcome.policy) == (None, "e1", "product")
    assert 0 < outcome.ttft_s <= outcome.ended_s - outcome.sent_s


@pytest.mark.parametrize(("tokens", "usage"), [(2, 3), (3, 2), (0, 0)])
async def test_a_missing_token_is_a_failure(
    answering: tuple[Gateway, Caller], tokens: int, usage: int
) -> None:
    gateway, caller = answering
    gateway.events = events(tokens, usage)
    outcome = await caller.ask((300,), 3)
    assert (outcome.wrong or "").startswith("incomplete")
    assert sum(wrongs([outcome]).values()) == 1


async def test_a_wrong_status_and_an_error_event_are_failures(answering: tuple[Gateway, Caller]) -> None:
    gateway, caller = answering
    gateway.events = [{"error": {"code": "stream_broken"}}]
    assert (await caller.ask((300,), 3)).wrong == "error event: stream_broken"
    gateway.status = 429
    assert ((await caller.ask((300,), 3)).wrong or "").startswith("status 429")


@pytest.mark.skipif(check_triton() is not None, reason="this machine cannot run the local Triton")
def test_a_part_runs_to_its_result_and_leaves_nothing_running(tmp_path: Path) -> None:
    """On a real Triton, with three real gateways."""
    command = [sys.executable, "-m", "bench.live_router", "--quick", "--only", "switching"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True) as ran:
        try:
            said, progress = ran.communicate(timeout=150)
        finally:
            ran.terminate()
    assert ran.returncode == 0, said + progress
    result = json.loads(said.splitlines()[-1].removeprefix("RESULT "))
    assert result["parts"]["switching"]["wrong"] == {}
    assert result["parts"]["switching"]["requests"] > 0
    assert not list(tmp_path.iterdir())
    left = [one for one in psutil.process_iter() if str(tmp_path) in _variables(one).get("TMPDIR", "")]
    assert not left


def _variables(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except psutil.Error:
        return {}
