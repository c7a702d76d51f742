"""Filter -> rate -> pick: which endpoint serves an attempt. Pure, apart from the coin that breaks ties."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from math import inf

from msgspec import Struct

from model_registry.entities import Endpoint
from model_registry.knobs import Knobs
from router.profiles import stand_ins
from router.view import Ask, EndpointView, Policy

ADAPTER_TOKENS = 512
"""What sending an adapter counts for beside load: megabytes on the wire, and an eviction later on."""


class Candidate(Struct, frozen=True, gc=False):
    """An endpoint and what is known of its load when the decision is made."""

    endpoint: Endpoint
    view: EndpointView
    profile: str
    is_ready: bool
    """The endpoint's: to read them off each of many is what a decision would mostly be."""
    breaker_admits: bool = True


class Decision(Struct, frozen=True, gc=False):
    """What was picked and why; `scores` is kept for `explain`."""

    endpoint: Endpoint | None
    reason: str
    scores: Mapping[str, float]
    """The policy's costs by endpoint name, lower is better; empty where no endpoint was left to be rated."""
    policy: str = ""
    """The policy's name."""
    view: EndpointView | None = None
    """Of the endpoint, as it was rated."""


def pick(
    profile: str,
    knobs: Knobs,
    policy: Policy,
    ask: Ask,
    choices: Sequence[Candidate],
    excluded: set[str],
    now_s: float,
    tie_break: Callable[[Sequence[int]], int] = random.choice,
) -> Decision:
    """The cheapest endpoint of the wanted profile, or of the first stand-in that has one.

    `knobs` and `policy` are the wanted profile's, wherever it spills to.
    """
    open_ones = [  # ready, meant to take traffic, not failed for this request, and let through by its breaker
        choice
        for choice in choices
        if choice.breaker_admits
        and choice.is_ready
        and choice.view.weight > 0
        and choice.view.name not in excluded
    ]
    if not open_ones:
        return Decision(None, _why_none(choices, excluded), {})
    # One that is left alone is every pool, and nothing is compared with it.
    pool = open_ones if len(open_ones) == 1 else _pool(profile, knobs, open_ones)
    views = [choice.view for choice in pool]
    costs = policy.costs(ask, views, now_s)
    scores = {view.name: cost for view, cost in zip(views, costs, strict=True)}
    least = min(costs)
    if least == inf:
        return Decision(None, "policy_takes_none", scores, knobs.policy)
    place = 0
    if len(pool) > 1:
        place = costs.index(least)
        if costs.count(least) > 1:
            place = tie_break([place for place, cost in enumerate(costs) if cost == least])
    chosen = pool[place].endpoint
    return Decision(chosen, _reason(chosen, profile), scores, knobs.policy, views[place])


def _pool(profile: str, knobs: Knobs, open_ones: Sequence[Candidate]) -> Sequence[Candidate]:
    """Those of one profile: the wanted one, if it is there and, where it spills, has a slot free."""
    wanted = [choice for choice in open_ones if choice.profile == profile]
    if wanted and (not knobs.spill_when_full or _any_free(wanted)):
        return wanted
    offered = {choice.profile for choice in open_ones}
    if len(offered) == 1:
        return open_ones
    pools = [
        [choice for choice in open_ones if choice.profile == one]
        for one in stand_ins(profile, offered, knobs)
        if one in offered
    ]
    if knobs.spill_when_full:
        for pool in pools:
            if _any_free(pool):
                return pool
    return pools[0]


def _any_free(pool: Sequence[Candidate]) -> bool:
    for choice in pool:  # noqa: SIM110  a generator costs more than the look
        if choice.view.requests < choice.view.slots:
            return True
    return False


def _reason(chosen: Endpoint, profile: str) -> str:
    return "profile" if chosen.profile == profile else f"stand_in:{chosen.profile}"


def _why_none(choices: Sequence[Candidate], excluded: set[str]) -> str:
    if not choices:
        return "no_endpoint_registered"
    if not any(choice.is_ready for choice in choices):
        return "none_ready"
    if all(choice.view.weight == 0 for choice in choices if choice.is_ready):
        return "weight_0"
    if all(choice.view.name in excluded for choice in choices if choice.is_ready):
        return "all_tried"
    return "breakers_open"
