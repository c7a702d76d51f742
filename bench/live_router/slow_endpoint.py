"""Slow endpoint: one engine of four becomes slow under load, and the gateways leave it.

Each gateway sees a third of the requests. With few clients the policies avoid the slow engine while a request
is stuck there, so that there is little to see.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from bench.live_router.callers import Caller, Load, Outcome, wrongs
from bench.live_router.engines import ENGINES
from bench.live_router.fleet import GATEWAYS, Fleet
from bench.live_router.report import Part, Say

BAR_LEFT_S = 2.0
FAULT = "slow:1000"
"""Milliseconds more for every step that a request takes part in."""
PROMPT_TOKENS, TOKENS = 48, 1
"""Endpoints are judged by first tokens: an answer that had its own before says nothing while it goes on."""
WARM_S, WARM_AT_MOST_S = 2.0, 20.0
WATCH_S = 4.5
"""Below the 5 s after which an endpoint that was left is tried again."""
RUNS = {12: 0, 4: 1}
"""Clients, and which engine becomes slow: another each time, since one that is left again is left longer."""


async def slow_endpoint(fleet: Fleet, say: Say, *, quick: bool) -> Part:  # noqa: ARG001 - as short as it can be
    """Ok: the last request that was sent there went within 2 s, and some did go."""
    await fleet.serve({})
    figures: dict[str, Any] = {"fault": FAULT, "bar_s": BAR_LEFT_S}
    wrong: dict[str, int] = {}
    met = True
    for clients, engine in RUNS.items():
        before = fleet.times_left()
        outcomes, slow_s = await _run(fleet, clients, engine)
        wrong |= wrongs(outcomes)
        sent = [
            one.sent_s - slow_s
            for one in outcomes
            if one.deployment == f"e{engine}" and 0 <= one.sent_s - slow_s < WATCH_S
        ]
        last_s = max(sent, default=0.0)
        met = met and bool(sent) and last_s < BAR_LEFT_S
        figures[f"{clients}_clients"] = {
            "asked": len(sent),
            "last_after_s": round(last_s, 2),
            "gateways_that_left": fleet.times_left() - before,
        }
        say(f"{clients} clients: the slow engine was asked {len(sent)} times, the last after {last_s:.2f} s")
    return Part(met, wrong, figures)


async def _run(fleet: Fleet, clients: int, engine: int) -> tuple[list[Outcome], float]:
    """All requests, and when the engine became slow."""
    began_s = time.monotonic()
    async with Load(Caller(fleet, "house", clients), clients, PROMPT_TOKENS, TOKENS) as load:
        while not _all_in_use(load.outcomes, began_s):  # noqa: ASYNC110 - a list has no event to wait for
            await asyncio.sleep(0.1)
        slow_s = time.monotonic()
        fleet.fault(engine, FAULT)
        try:
            await asyncio.sleep(WATCH_S)
        finally:
            fleet.fault(engine, None)
    return load.outcomes, slow_s


def _all_in_use(outcomes: list[Outcome], began_s: float) -> bool:
    """Whether every gateway has lately asked every engine, also one that had been left before.

    A gateway leaves at most one of four alone: the next slow one it would have to keep.
    """
    took_s = time.monotonic() - began_s
    since_s = time.monotonic() - WARM_S
    lately = {(one.gateway, one.deployment) for one in outcomes if one.sent_s > since_s}
    return took_s > WARM_AT_MOST_S or (took_s > WARM_S and len(lately) == GATEWAYS * ENGINES)
