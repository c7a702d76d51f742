"""Filter -> score -> pick: which endpoint serves an attempt. Pure, apart from the coin that breaks ties."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from model_registry.entities import Endpoint
from router.breaker import CLOSED
from router.config import RouterConfig
from router.ledger import Ledger
from router.profiles import stand_ins

ADAPTER_TOKENS = 512
"""What sending an adapter counts for beside load: megabytes on the wire, and an eviction later on."""


class Candidate(NamedTuple):
    """An endpoint and what is known of its load when the decision is made."""

    endpoint: Endpoint
    in_flight_tokens: int
    breaker_admits: bool
    lacks_adapter: bool = False
    """The request's LoRA adapter would have to be sent there."""


class Decision(NamedTuple):
    """What was picked and why; `scores` is kept for `explain`."""

    endpoint: Endpoint | None
    reason: str
    scores: Mapping[str, float]
    policy: str = "least_tokens"


def candidates(
    endpoints: Sequence[Endpoint],
    lanes: frozenset[str] | None,
    ledger: Ledger,
    now_s: float,
    config: RouterConfig,
) -> list[Candidate]:
    """The values a decision is made of, for the endpoints of `lanes` (None: of all)."""
    found = []
    for endpoint in endpoints:
        if lanes is not None and endpoint.lane not in lanes:
            continue
        load = ledger.of(endpoint.name)
        admits = load.breaker is CLOSED or load.prove(config) or load.breaker.admits(now_s, config)
        found.append(Candidate(endpoint, load.tokens, admits))
    return found


def admissible(candidate: Candidate, excluded: set[str]) -> bool:
    """Filter: ready, not failed before for this request, and not kept away by its breaker."""
    return (
        candidate.endpoint.state == "ready"
        and candidate.breaker_admits
        and candidate.endpoint.name not in excluded
    )


def score(candidate: Candidate, tokens: int) -> float:
    """Rates from 0 (avoid) to 1 (prefer): least tokens in flight per slot, this request's included."""
    if candidate.lacks_adapter:
        tokens += ADAPTER_TOKENS
    per_slot = (candidate.in_flight_tokens + tokens) / candidate.endpoint.max_concurrency
    return 1.0 / (1.0 + per_slot)


def pick(
    profile: str,
    choices: Sequence[Candidate],
    tokens: int,
    excluded: set[str],
    tie_break: Callable[[Sequence[Endpoint]], Endpoint] = random.choice,
) -> Decision:
    """The best endpoint of the wanted profile, or of the first stand-in that has one."""
    open_ones = [choice for choice in choices if admissible(choice, excluded)]
    if not open_ones:
        return Decision(None, _why_none(choices, excluded), {})
    if len(open_ones) == 1:
        only = open_ones[0].endpoint
        return Decision(only, _reason(only, profile), {})
    for wanted in stand_ins(profile, (choice.endpoint.profile for choice in open_ones)):
        pool = [choice for choice in open_ones if choice.endpoint.profile == wanted]
        if pool:
            break
    scores = {choice.endpoint.name: score(choice, tokens) for choice in pool}
    best = max(scores.values())
    chosen = tie_break([choice.endpoint for choice in pool if scores[choice.endpoint.name] == best])
    return Decision(chosen, _reason(chosen, profile), scores)


def _reason(chosen: Endpoint, profile: str) -> str:
    return "profile" if chosen.profile == profile else f"stand_in:{chosen.profile}"


def _why_none(choices: Sequence[Candidate], excluded: set[str]) -> str:
    if not choices:
        return "no_endpoint_registered"
    if all(choice.endpoint.state != "ready" for choice in choices):
        return "none_ready"
    if all(choice.endpoint.name in excluded for choice in choices if choice.endpoint.state == "ready"):
        return "all_tried"
    return "breakers_open"
