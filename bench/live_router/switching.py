"""Switching: a profile's knobs and the profiles of deployments change while streams run and requests wait."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Any

from bench.live_router.callers import Caller, Load, wrongs
from bench.live_router.fleet import GATEWAYS, Fleet
from bench.live_router.report import Part, Say
from bench.stack import Manifest

SLOTS = 4
CLIENTS = 30
PROMPT_TOKENS, TOKENS = 64, 20
PAUSE_S = 0.6
ANSWER_S = 10.0
"""How long a policy may take to be seen: requests begin in waves, and between two of them none is routed."""
KNOBS: tuple[dict[str, Any], ...] = (
    {"policy": "round-robin", "order": "fcfs", "window": 1.0},
    {"policy": "least-tokens", "order": "wspt", "window": 0.5},
    {"policy": "sticky", "order": "edf", "window": 1.5},
    {"policy": "predicted-ttft", "order": "wspt", "window": 1.0, "spill_when_full": False},
    {"policy": "product", "order": "fcfs", "window": 0.75, "queue_limit": 512},
)


async def switching(fleet: Fleet, say: Say, *, quick: bool) -> Part:
    """Ok: every request is answered whole, and each policy that was set has routed some."""
    await fleet.serve({}, SLOTS)
    rounds = 1 if quick else 3
    switches, slowest_s = 0, 0.0
    async with Load(Caller(fleet, "house"), CLIENTS, PROMPT_TOKENS, TOKENS) as load:
        await asyncio.sleep(1.0)
        for number in range(rounds * len(KNOBS)):
            before, began_s = len(load.outcomes), time.monotonic()
            await fleet.apply(*_change(fleet, number), gateway=number % GATEWAYS)
            slowest_s = max(slowest_s, time.monotonic() - began_s)
            switches += 1
            await asyncio.sleep(PAUSE_S)
            await load.until(partial(_routed, load, number, before), ANSWER_S)
    policies = {one.policy for one in load.outcomes if one.wrong is None}
    figures = {
        "switches": switches,
        "requests": len(load.outcomes),
        "policies_seen": sorted(policies),
        "slowest_switch_s": round(slowest_s, 3),
    }
    lost = sum(wrongs(load.outcomes).values())
    say(f"{switches} switches under {len(load.outcomes)} requests, of which {lost} went wrong")
    met = {str(knobs["policy"]) for knobs in KNOBS} <= policies
    return Part(met, wrongs(load.outcomes), figures)


def _routed(load: Load, number: int, before: int) -> bool:
    """Whether a request that ended after the first `before` was routed by the policy of this change."""
    policy = KNOBS[number % len(KNOBS)]["policy"]
    return any(one.policy == policy for one in load.outcomes[before:])


def _change(fleet: Fleet, number: int) -> list[Manifest]:
    """Other knobs each time; a deployment goes to another profile and comes back, and so do slots."""
    knobs = KNOBS[number % len(KNOBS)]
    profile = {"kind": "Profile", "metadata": {"name": "balanced"}, "spec": knobs}
    moved = fleet.deployment(1, SLOTS, ("latency", "balanced")[number % 2])
    sized = fleet.deployment(2, (SLOTS, 2 * SLOTS)[number % 2])
    return [profile, moved, sized]
