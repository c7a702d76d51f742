"""Neighbour: one tenant floods, another sends at a steady rate, and waits little longer than alone.

The bound is the queue's promise (docs/queueing.md): while two tenants wait, what they get per weight differs
by at most 1,024 tokens and two of the largest requests. So a request of the victim waits no longer than its
gateway takes to serve the flood that many; how fast the slowest gateway does that is measured.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence

from bench.live_router.callers import Caller, Load, Outcome, wrongs
from bench.live_router.fleet import GATEWAYS, Fleet
from bench.live_router.report import Part, Say
from router.admission import service
from router.fair_queue import QUANTUM_TOKENS
from router.replay.statistics import quantile

SLOTS = 6
VICTIM_PROMPT, VICTIM_TOKENS = 128, 6
VICTIM_RATE = 6.0
FLOOD_PROMPT, FLOOD_TOKENS = 96, 24
FLOOD_CLIENTS = 60
BACKLOG_S = 2.5
"""Until the flood has far more waiting than there are slots."""
SHARE = 0.95


async def neighbour(fleet: Fleet, say: Say, *, quick: bool) -> Part:
    """Ok: the victim's p95 time to first token is within the bound, while the flood does wait."""
    await fleet.serve({}, SLOTS)
    requests = 18 if quick else 90
    victim = Caller(fleet, "victim", 1)
    alone = await _steady(victim, requests)
    say(f"alone: p95 TTFT {_p95_s(alone):.3f} s")
    async with Load(Caller(fleet, "flood", 2), FLOOD_CLIENTS, FLOOD_PROMPT, FLOOD_TOKENS) as flood:
        await asyncio.sleep(BACKLOG_S)
        began_s = time.monotonic()
        beside = await _steady(victim, requests)
        ended_s = time.monotonic()
    served = [one for one in flood.outcomes if began_s <= one.ended_s <= ended_s]
    largest = max(service(VICTIM_PROMPT, VICTIM_TOKENS), service(FLOOD_PROMPT, FLOOD_TOKENS))
    by_gateway = Counter(one.gateway for one in served)
    slowest = min(by_gateway[number] for number in range(GATEWAYS))
    gateway_rate = slowest * service(FLOOD_PROMPT, FLOOD_TOKENS) / (ended_s - began_s)
    turn_s = (QUANTUM_TOKENS + 2 * largest) / gateway_rate
    alone_s, beside_s, flood_s = _p95_s(alone), _p95_s(beside), _p95_s(served)
    bound_s = alone_s + turn_s
    say(
        f"beside the flood: p95 TTFT {beside_s:.3f} s, bound {bound_s:.3f} s; the flood's own {flood_s:.3f} s"
    )
    figures = {
        "victim_p95_alone_s": round(alone_s, 3),
        "victim_p95_s": round(beside_s, 3),
        "bound_s": round(bound_s, 3),
        "ratio": round(beside_s / alone_s, 2),
        "flood_p95_s": round(flood_s, 3),
        "gateway_tokens_per_s": round(gateway_rate),
    }
    return Part(beside_s <= bound_s < flood_s, wrongs([*alone, *beside, *flood.outcomes]), figures)


async def _steady(caller: Caller, requests: int) -> list[Outcome]:
    """Requests at even distances, whatever becomes of them."""
    begin_s = time.monotonic()

    async def one(number: int) -> Outcome:
        due_s = begin_s + number / VICTIM_RATE
        await asyncio.sleep(due_s - time.monotonic())
        return await caller.ask(caller.prompt(VICTIM_PROMPT), VICTIM_TOKENS, due_s)

    return list(await asyncio.gather(*(one(number) for number in range(requests))))


def _p95_s(outcomes: Sequence[Outcome]) -> float:
    """Of the times to first token of those that had one."""
    return quantile(sorted(one.ttft_s for one in outcomes if one.first_s is not None), SHARE)
