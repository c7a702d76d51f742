"""Overload: more load than the fleet can carry. What is still served well, and how critical requests fare."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from random import Random
from typing import NamedTuple

from model_registry.knobs import Knobs
from router.replay.engine import Engine, EngineCard
from router.replay.holding import HoldingGateway
from router.replay.run import Fleet, Outcome, run
from router.replay.workload import Workload, bundled

RATES = (6.8, 10.2)
"""Requests per second: 1.4 and 2.1 times the SLO capacity of the product rule."""
CRITICAL_SHARE = 0.3
SLOTS = 24
KNOBS = Knobs(
    order="edf",
    ttft_target_s=1.0,
    refuse_late=True,
    prefill_share=0.36,
    queue_limit=1000,
    window_tolerance=16,
)
"""The share and what priorities are worth were chosen on this trace with seed 1."""
ITL_S = 0.05


class OverloadRow(NamedTuple):
    """One run."""

    rate: float
    seed: int
    goodput: float
    """Requests per second that met their targets."""
    token_goodput: float
    """Their tokens per second."""
    critical: float
    """Share of critical requests that met them; refused ones did not."""
    longest_decile: float
    """The same, of the tenth of all requests with the longest prompts."""
    refused: Mapping[str, int]
    """By reason."""


def overload(
    rate: float, seed: int, knobs: Knobs = KNOBS, slots: int = SLOTS, workload: Workload | None = None
) -> OverloadRow:
    """Mooncake's conversations (or another workload) at `rate` requests per second."""
    random = Random(f"critical {seed}")
    timed = (workload or bundled("mooncake")).at(rate, seed)
    marked = [one._replace(critical=random.random() < CRITICAL_SHARE) for one in timed.requests]
    gateways: list[HoldingGateway] = []

    def gateway(engines: Sequence[Engine]) -> HoldingGateway:
        gateways.append(HoldingGateway(engines, knobs, slots, seed))
        return gateways[0]

    fleet = Fleet()
    outcomes = run(timed._replace(requests=marked), fleet, gateway)
    span_s = outcomes[-1].request.arrival_s - outcomes[0].request.arrival_s
    good = [one for one in outcomes if _met(one, fleet.card)]
    tokens = sum(one.request.prompt_tokens + one.request.output_tokens for one in good)
    longest = sorted(outcomes, key=lambda one: -one.request.prompt_tokens)[: max(1, len(outcomes) // 10)]
    return OverloadRow(
        rate,
        seed,
        len(good) / span_s,
        tokens / span_s,
        _attainment([one for one in outcomes if one.request.critical], fleet.card),
        _attainment(longest, fleet.card),
        Counter(gateways[0].refused.values()),
    )


def _met(outcome: Outcome, card: EngineCard) -> bool:
    target_s = max(1.0, 2 * card.prefill_s(outcome.request.prompt_tokens))
    return outcome.ttft_s <= target_s and outcome.itl_s <= ITL_S


def _attainment(outcomes: Sequence[Outcome], card: EngineCard) -> float:
    return sum(_met(one, card) for one in outcomes) / max(1, len(outcomes))
