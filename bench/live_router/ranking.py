"""Ranking: the order of routing policies under one workload, live and in replay.

Each policy gets the same conversations at the same times, live through three gateways and in replay through
three gateways of the same code before engines of the same card; ranked by mean time to first token of what
came after the caches had filled.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import combinations
from statistics import fmean
from typing import Any, NamedTuple

from bench.live_router.callers import Caller, Outcome, wrongs
from bench.live_router.engines import BLOCK_TOKENS, CARD, ENGINES
from bench.live_router.fleet import GATEWAYS, Fleet
from bench.live_router.report import Part, Say
from bench.live_router.workload import Turn, conversations, trace
from model_registry.knobs import Knobs
from router.replay.gateways import Exchange, Gateways
from router.replay.run import Fleet as ReplayFleet
from router.replay.run import run

BAR_TAU = 0.8
RATE = 13.0
WARM_SHARE = 0.2
"""Of the time, in which caches fill; not counted."""
SEED = 4
REPLAY_SEEDS = (1, 2, 3)
"""Of the replay's own draws; the conversations are the same."""
EXCHANGE = Exchange(GATEWAYS, period_s=0.25, age_s=0.02, hints=True)
"""How often gateways report at `slices.report_s`, and how long a report is on its way on one machine."""
NO_WINDOW = 1000.0
"""Window tolerance: in replay everything goes to an engine at once, so that here it must not wait either."""


class Rule(NamedTuple):
    """A policy with its options, so chosen that replay tells one from the next clearly."""

    name: str
    policy: str
    options: Mapping[str, float] = {}


RULES = (
    Rule("system prompt decides", "consistent-hash", {"bound": 100}),
    Rule("least requests", "least-requests"),
    Rule("cached 88 % or least", "cache-threshold", {"threshold": 0.88}),
    Rule("product", "product"),
    Rule("sticky", "sticky"),
)
QUICK_RULES = (RULES[1], RULES[4])


def kendall_tau(one: Sequence[float], other: Sequence[float]) -> float:
    """Of two lists of figures for the same things, without ties: 1: the same order, -1: the opposite one."""
    pairs = list(combinations(range(len(one)), 2))
    agree = sum((one[a] - one[b]) * (other[a] - other[b]) > 0 for a, b in pairs)
    return (2 * agree - len(pairs)) / len(pairs)


async def ranking(fleet: Fleet, say: Say, *, quick: bool) -> Part:
    """Ok: both orders agree, and every request was answered whole by the policy that it was meant for."""
    seconds, rules = (9.0, QUICK_RULES) if quick else (40.0, RULES)
    live: dict[str, float] = {}
    foretold: dict[str, float] = {}
    wrong: dict[str, int] = {}
    left_before = fleet.times_left()
    for nonce, rule in enumerate(rules):
        turns = conversations(seconds, RATE, SEED, nonce)
        counted = [turn.at_s >= WARM_SHARE * seconds for turn in turns]
        foretold[rule.name] = await asyncio.to_thread(_replayed, rule, turns, counted)
        await fleet.serve(
            {"policy": rule.policy, "policy_options": dict(rule.options), "window_tolerance": NO_WINDOW}
        )
        outcomes = await played(Caller(fleet, "house", nonce), turns)
        for why, times in wrongs(outcomes).items():
            wrong[why] = wrong.get(why, 0) + times
        astray = sum(one.wrong is None and one.policy != rule.policy for one in outcomes)
        if astray:
            wrong[f"not routed by {rule.policy}"] = astray
        live[rule.name] = fmean(
            one.ttft_s for one, counts in zip(outcomes, counted, strict=True) if counts and one.first_s
        )
        say(f"{rule.name}: mean TTFT {live[rule.name]:.3f} s live, {foretold[rule.name]:.3f} s in replay")
    tau = kendall_tau(list(live.values()), list(foretold.values()))
    figures: dict[str, Any] = {
        "tau": round(tau, 2),
        "bar_tau": BAR_TAU,
        "requests_per_policy": len(turns),
        "times_an_endpoint_was_left": fleet.times_left() - left_before,
        "live_ttft_s": {name: round(value, 3) for name, value in live.items()},
        "replay_ttft_s": {name: round(value, 3) for name, value in foretold.items()},
    }
    return Part(tau >= BAR_TAU, wrong, figures)


async def played(caller: Caller, turns: Sequence[Turn]) -> list[Outcome]:
    """Every turn at its time, whatever has become of those before it; timed from then."""
    begin_s = time.monotonic() + 0.1

    async def one(turn: Turn) -> Outcome:
        due_s = begin_s + turn.at_s
        await asyncio.sleep(due_s - time.monotonic())
        return await caller.ask(turn.prompt_ids, turn.output_tokens, due_s)

    asked: list[Awaitable[Outcome]] = [one(turn) for turn in turns]
    return list(await asyncio.gather(*asked))


def _replayed(rule: Rule, turns: list[Turn], counted: Sequence[bool]) -> float:
    """Mean time to first token of those that are counted."""
    workload, knobs = trace(turns), Knobs(policy=rule.policy, policy_options=rule.options)
    fleet = ReplayFleet(ENGINES, CARD, BLOCK_TOKENS)
    found: list[float] = []
    for seed in REPLAY_SEEDS:
        router_for: Callable[[Any], Gateways] = lambda engines: Gateways(engines, knobs, seed, EXCHANGE)  # noqa: B023, E731
        outcomes = run(workload, fleet, router_for)
        found += [one.ttft_s for one, counts in zip(outcomes, counted, strict=True) if counts]
    return fmean(found)
