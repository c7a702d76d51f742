"""Following: a tenfold step of the load and its fall; a model that leaves, and comes when asked for."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.build import BenchError
from bench.scale.asking import Outcome
from bench.scale.callers import Callers
from bench.scale.fleet import LOAD_S, TTFT_S, Fleet, fleet

USUAL_PER_S = 0.55
STEP = 10
"""To three times what one replica does, so that four are the fewest that keep the target. Twice a replica's
work comes to wait in every second until they are up, which is for more than four to work off in time."""
LEAST_AT_STEP = 4
USUAL_S, STEP_S = 30.0, 150.0
FALL_WITHIN_S = 300.0
WINDOW_S = 5.0
LEAVES_WITHIN_S = 240.0
LOOK_S = 0.2


async def following(seed: int, say: Callable[[str], None], folder: Path) -> dict[str, Any]:
    """One replica, so many as the step needs, one again, none, and one for who asks then."""
    async with fleet(folder) as running:
        await running.deploy(min_replicas=1)
        await _until(running, 1, LEAVES_WITHIN_S)
        step = await _step(running, seed, say)
        zero = await _zero(running, seed, say)
    return {"step": step, "zero": zero, "ok": step["ok"] and zero["ok"]}


async def _step(running: Fleet, seed: int, say: Callable[[str], None]) -> dict[str, Any]:
    callers, seen = Callers(running.stack, seed), [1]
    watching = asyncio.create_task(_watch(running, seen, say))
    try:
        await callers.come(USUAL_PER_S, USUAL_S)
        say(f"{STEP} times the load")
        began_s = time.monotonic()
        await callers.come(STEP * USUAL_PER_S, STEP_S)
        ended_s = time.monotonic()
        most, cold_start_s = max(seen), (await running.status()).cold_start_s or 0.0
        say("the load falls")
        falling = asyncio.create_task(callers.come(USUAL_PER_S, FALL_WITHIN_S))
        try:
            await _until(running, 1, FALL_WITHIN_S)
        finally:
            falling.cancel()
        fell_s = time.monotonic() - ended_s
        await callers.answered()
    finally:
        watching.cancel()
    recovered_s = _recovered_s(callers.outcomes, began_s, ended_s)
    wrong = [one.wrong for one in callers.outcomes if one.wrong is not None]
    back_in_time = recovered_s is not None and recovered_s <= 2 * cold_start_s
    return {
        "requests": len(callers.outcomes),
        "failed": len(wrong),
        "failures": sorted(set(wrong))[:5],
        "replicas": [1, most, 1],
        "cold_start_s": cold_start_s,
        "p95_ttft_back_after_s": recovered_s,
        "target_ttft_s": TTFT_S,
        "p95_ttft_s": {
            "before": _p95([one for one in callers.outcomes if one.sent_s < began_s]),
            "step": _p95([one for one in callers.outcomes if began_s <= one.sent_s < ended_s]),
            "after": _p95([one for one in callers.outcomes if one.sent_s >= ended_s]),
        },
        "fell_after_s": round(fell_s, 1),
        "ok": not wrong and most >= LEAST_AT_STEP and back_in_time,
    }


async def _zero(running: Fleet, seed: int, say: Callable[[str], None]) -> dict[str, Any]:
    await running.deploy(min_replicas=0, idle_s=5)
    began_s = time.monotonic()
    await _until(running, 0, LEAVES_WITHIN_S)
    left_s = time.monotonic() - began_s
    say(f"nothing is loaded, {left_s:.0f} s after the last request; three requests come at once")
    callers = Callers(running.stack, seed + 1)
    asked = [callers.ask() for _ in range(3)]
    await callers.answered()
    wrong = [one.wrong for one in asked if one.wrong is not None]
    ttfts_s = [one.ttft_s for one in asked if one.ttft_s is not None]
    return {
        "left_after_s": round(left_s, 1),
        "failures": wrong,
        "cold": sum(one.cold for one in asked),
        "first_tokens_s": [round(one, 2) for one in ttfts_s],
        "ok": not wrong and len(ttfts_s) == 3 and min(ttfts_s) >= LOAD_S and all(one.cold for one in asked),
    }


async def _watch(running: Fleet, seen: list[int], say: Callable[[str], None]) -> None:
    while True:
        loaded = await running.loaded()
        if loaded != seen[-1]:
            seen.append(loaded)
            status = await running.status()
            say(f"{loaded} loaded, {status.wanted} wanted: {status.reason}")
        await asyncio.sleep(LOOK_S)


async def _until(running: Fleet, replicas: int, within_s: float) -> None:
    """Exactly so many serve, by the registry and by the servers."""
    deadline_s = time.monotonic() + within_s
    while True:
        status = await running.status()
        counts = status.ready, status.starting, status.draining
        if counts == (replicas, 0, 0) and await running.loaded() == replicas:
            return
        if time.monotonic() > deadline_s:
            raise BenchError(f"{replicas} replicas did not come about within {within_s:g} s: {status!r}")
        await asyncio.sleep(LOOK_S)


def _recovered_s(outcomes: Sequence[Outcome], began_s: float, ended_s: float) -> float | None:
    """From the step until requests that come within any later window keep the target; None: never."""
    windows = [began_s + LOOK_S * n for n in range(math.floor((ended_s - WINDOW_S - began_s) / LOOK_S))]
    missed = [
        start_s
        for start_s in windows
        if (_p95([one for one in outcomes if start_s <= one.sent_s < start_s + WINDOW_S]) or 0.0) > TTFT_S
    ]
    if not missed:
        return 0.0
    return None if missed[-1] == windows[-1] else round(missed[-1] + LOOK_S - began_s, 1)


def _p95(outcomes: Sequence[Outcome]) -> float | None:
    ttfts_s = sorted(one.ttft_s if one.ttft_s is not None else math.inf for one in outcomes)
    return round(ttfts_s[math.ceil(0.95 * len(ttfts_s)) - 1], 2) if ttfts_s else None
