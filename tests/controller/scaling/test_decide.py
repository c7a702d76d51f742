"""The decision in closed loop with a fluid fleet: steps, ramps, wrong cards, silence, and nothing at all."""

from __future__ import annotations

import numpy as np
import pytest

from controller.replay.fluid import Engines, Run, State, run
from controller.replay.own import Own
from controller.replay.traffic import Traffic
from controller.scaling.decide import Fleet, Limits, Memory, Seen, decide
from controller.scaling.lateness import late, worth
from controller.scaling.trend import Point, Trend, follow

LIMITS = Limits(least=1, most=50, idle_s=600, cold_start_s=30, wait_s=2, request_s=0.2)


def traffic(*loads: tuple[int, float], seed: int = 1) -> Traffic:
    """So many seconds at such a load each, in requests of 0.2 replica-seconds that come at random."""
    mean = np.concatenate([np.full(seconds, load) for seconds, load in loads])
    requests = np.random.default_rng(seed).poisson(mean / LIMITS.request_s).astype(float)
    return Traffic("test", requests, requests * LIMITS.request_s)


def replay(of: Traffic, begin: int, cold_start_s: int = 30, **more: int) -> Run:
    engines = Engines(cold_start_s, 2, 10.0, LIMITS.request_s, **more)
    return run(of, engines, Own(engines), begin)


class EverySecond(Own):
    """As the controller looks."""

    period_s = 1


@pytest.mark.parametrize("cold_start_s", [10, 20, 60])
def test_a_tenfold_step_is_caught_up_with_in_two_cold_starts_and_left_again(cold_start_s: int) -> None:
    step = traffic((300, 0.5), (600, 5.0), (900, 0.5))
    engines = Engines(cold_start_s, 2, 10.0, LIMITS.request_s)
    found = run(step, engines, EverySecond(engines), 1)
    backlog, late_s = 0.0, 0
    for second, work in enumerate(step.work):
        backlog = max(0.0, backlog + work - found.ready[second])
        if backlog > engines.wait_s * found.ready[second] and second < 900:
            late_s = second - 300
    assert late_s <= 2 * cold_start_s + 5
    assert found.up.max() <= 12
    assert found.up[1200:].max() <= 2
    assert found.ups <= 8


def test_a_steady_load_is_left_alone() -> None:
    found = replay(traffic((7200, 8.0)), 10)
    assert found.ups <= 8
    assert 8.5 < found.up[600:].mean() < 11.5
    assert found.attainment > 0.99


@pytest.mark.parametrize("truth", [0.7, 1.3])
def test_a_card_that_is_wrong_is_learned_over(truth: float) -> None:
    """Replicas do `truth` of what the card says: as if all work were that much more or less."""
    mean = traffic((2 * 3600, 8.0))
    real = Traffic("test", mean.requests, mean.work / truth)
    believed = Engines(30, 2, 10.0, LIMITS.request_s)

    class Misled(Own):
        def look(self, state: State) -> int:
            return super().look(state._replace(arrived=state.arrived * truth, backlog=state.backlog * truth))

    found = run(real, believed, Misled(believed), 10)
    assert run_attainment(real, found, after_s=1800) > 0.985


def run_attainment(of: Traffic, found: Run, after_s: int) -> float:
    from controller.replay.fluid import attainment, served

    done = served(of, found.ready)
    rest = Traffic(of.name, of.requests[after_s:], of.work[after_s:])
    return attainment(rest, done[after_s:], 2)


def test_silence_changes_nothing() -> None:
    memory = Memory()
    for second in range(0, 400, 5):
        seen = Seen(1.0, 20.0, busy=4.0, requests=20, answered=25)
        decision, memory = decide(float(second), seen, Fleet(6), LIMITS, memory)
    assert decision.replicas in {5, 6}
    for second in range(400, 4000, 5):
        decision, memory = decide(float(second), Seen(11.0 + second, None), Fleet(6), LIMITS, memory)
        assert decision.replicas == 6
        assert "old" in decision.reason
    decision, memory = decide(4000.0, Seen(None), Fleet(6), LIMITS, memory)
    assert decision.replicas == 6


def test_none_only_after_nobody_asked_for_long() -> None:
    limits, memory = LIMITS._replace(least=0, idle_s=300), Memory()
    wanted = []
    for second in range(0, 700, 5):
        asked = second < 100
        seen = Seen(1.0, 0.2 if asked else 0.0, requests=int(asked))
        decision, memory = decide(float(second), seen, Fleet(1), limits, memory)
        wanted.append((second, decision.replicas))
    assert min(replicas for second, replicas in wanted if second < 390) == 1
    assert wanted[-1][1] == 0
    decision, memory = decide(701.0, Seen(1.0, 0.2, 0.2, requests=1, held=1), Fleet(0), limits, memory)
    assert decision.replicas >= 1
    assert "held" in decision.reason


def test_what_is_held_when_a_leader_begins_brings_one_at_once() -> None:
    limits = LIMITS._replace(least=0)
    assert decide(0.0, Seen(1.0, None, requests=2, held=2), Fleet(0), limits, Memory())[0].replicas == 1
    assert decide(0.0, Seen(60.0, None, requests=2, held=2), Fleet(0), limits, Memory())[0].replicas == 0


def test_clumps_of_requests_are_not_held_against_forecasts() -> None:
    """Room for them is reckoned from the spread; a load that moves is what forecasts can be wrong about."""

    def off(of: Traffic) -> float:
        trend, squares = Trend(0.0, 2 * LIMITS.request_s), []
        for second, work in enumerate(of.work, 1):
            before, trend = trend.residual_s, follow(trend, float(second), float(work), 30.0)
            if trend.residual_s > before and second > 600:
                squares.append((trend.residuals[-1] - 1) ** 2)
        return float(np.sqrt(np.mean(squares)))

    load = 2.0
    by_clumps = float(np.sqrt(LIMITS.request_s / load / 30))
    steady = off(traffic((7200, load)))
    assert steady < by_clumps
    assert off(traffic(*[(300, 1.4 * load), (300, 0.6 * load)] * 12)) > 3 * by_clumps


def test_lateness_falls_with_room_and_rises_with_spread() -> None:
    assert late(10, 10.5, 0.2, 2) == 1
    assert late(10, 0, 0.2, 2) == 0
    falling = [late(n, 8, 0.4, 2) for n in range(9, 15)]
    assert falling == sorted(falling, reverse=True)
    assert late(10, 9, 0.8, 2) > late(10, 9, 0.4, 2)
    assert late(10, 9, 0.4, 1) > late(10, 9, 0.4, 2)


def test_worth_grows_with_price_and_with_what_may_come() -> None:
    calm, unsure = [Point(8.0, 1.0)], [Point(8.0, 0.8), Point(11.0, 0.2)]
    assert worth(calm, 0.4, 2, 2) <= worth(calm, 0.4, 2, 200)
    assert worth(calm, 0.4, 2, 20) < worth(unsure, 0.4, 2, 20)
    assert worth([], 0.4, 2, 20) == 0
    assert worth(calm, 0.4, 2, 20, fill=0.5) >= 2 * worth(calm, 0.4, 2, 20) - 2
