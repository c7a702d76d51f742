"""Slots: all gateways together never have more at an engine than its slots, and leave none idle.

Counted by the engines themselves, which could run several times as many and would. First every gateway has
requests waiting, then one alone, to which the others' slots have to come.
"""

from __future__ import annotations

import asyncio
from statistics import fmean

from bench.live_router.callers import Caller, Load, wrongs
from bench.live_router.engines import ENGINES
from bench.live_router.fleet import GATEWAYS, Fleet
from bench.live_router.report import Part, Say

BAR_USED = 0.95
SLOTS = 6
CLIENTS = 40
PROMPT_TOKENS, TOKENS = 32, 50
SETTLE_S = 3.0
"""Until slots are where the load is: a lease, and the longest answer."""
LOOK_S = 0.02


async def slots(fleet: Fleet, say: Say, *, quick: bool) -> Part:
    """Ok: no engine ever had more requests than its slots; 95 % of all slots were in use in the mean."""
    await fleet.serve({}, SLOTS)
    seconds = 2.0 if quick else 8.0
    most, used = 0, dict[str, float]()
    wrong: dict[str, int] = {}
    phases = {"all gateways": range(GATEWAYS), "one gateway": range(1)}
    for name, gateways in list(phases.items())[: 1 if quick else 2]:
        caller = Caller(fleet, "house", gateways=gateways)
        async with Load(caller, CLIENTS, PROMPT_TOKENS, TOKENS) as load:
            seen = await _watch(fleet, SETTLE_S)
            settled = await _watch(fleet, seconds)
        most = max(most, *(max(look) for look in (*seen, *settled)))
        used[name] = round(fmean(sum(look) for look in settled) / (ENGINES * SLOTS), 3)
        wrong |= wrongs(load.outcomes)
        say(f"{name}: {used[name]:.1%} of the slots in use, at most {most} of {SLOTS} at one engine")
    figures = {"slots": SLOTS, "most": most, "used": used, "bar_used": BAR_USED}
    return Part(most == SLOTS and min(used.values()) >= BAR_USED, wrong, figures)


async def _watch(fleet: Fleet, seconds: float) -> list[list[int]]:
    """Requests at every engine, look by look."""
    loop = asyncio.get_running_loop()
    until_s, looks = loop.time() + seconds, []
    while loop.time() < until_s:
        looks.append([*(await fleet.engine_requests()).values()])
        await asyncio.sleep(LOOK_S)
    return looks
