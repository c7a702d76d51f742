"""Gateways in replay: live decisions, on what a gateway can know."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import pytest

from model_registry.knobs import Knobs
from router.policies import make
from router.replay.engine import Engine, EngineCard
from router.replay.gateways import Exchange, Gateways, Hold
from router.replay.oracle import Oracle
from router.replay.run import Fleet, Outcome, run
from router.replay.statistics import capacity, interval, summary
from router.replay.workload import Request, TraceError, Workload, bundled

CARD = EngineCard()


def replayed(policy: str, rate: float, exchange: Exchange = Exchange(), hold: Hold = Hold()) -> list[Outcome]:  # noqa: B008
    """Ten minutes of the conversation, compressed to `rate`."""
    workload = bundled("mooncake").at(rate, 1).first(400)
    return run(workload, Fleet(), lambda engines: Gateways(engines, Knobs(policy=policy), 1, exchange, hold))


def test_policies_rank_as_they_are_known_to() -> None:
    """At a load that blind rules cannot bear: product before the fewest requests before turns."""
    met = [summary(replayed(one, 4.6), CARD).met for one in ("product", "least-requests", "round-robin")]
    assert met[0] > met[1] + 0.05 > met[2] + 0.1


def test_nobody_beats_the_pooled_oracle_on_hits() -> None:
    """It has one cache of all sizes added."""
    workload = bundled("mooncake").at(4.2, 1).first(400)
    pooled = summary(
        run(workload, Fleet(shared_cache=True), lambda engines: Oracle(engines, make("product"), 512, 1)),
        CARD,
    )
    ours = summary(replayed("product", 4.2), CARD)
    assert pooled.hits > ours.hits > 0.5 * pooled.hits
    assert pooled.mean_ttft_s < ours.mean_ttft_s


def test_stale_reports_cost_and_gossip_wins_some_back() -> None:
    """Four gateways that know each other's load late are worse than one; sooner and with hints is better."""
    one = summary(replayed("product", 4.2), CARD)
    stale = summary(replayed("product", 4.2, Exchange(4, 5.0, 0.0, 0.02)), CARD)
    fresh = summary(replayed("product", 4.2, Exchange(4, 5.0, 0.0, 0.02, hints=True, at_once=True)), CARD)
    assert one.mean_ttft_s < stale.mean_ttft_s
    assert fresh.hits > stale.hits
    assert fresh.mean_ttft_s < stale.mean_ttft_s


def test_a_held_request_goes_when_an_endpoint_is_free_and_the_earliest_deadline_first() -> None:
    """The long prompt that came before has the later deadline, so that the short one passes it."""
    workload = Workload(
        "three",
        [Request(0.0, 9000, 2), Request(0.01, 30_000, 2, number=1), Request(0.02, 600, 2, number=2)],
    )

    def by(engines: Sequence[Engine]) -> Gateways:
        return Gateways(engines, Knobs(), 1, Exchange(), Hold(1, deadline=True))

    first, long, short = run(workload, Fleet(engines=1), by)
    assert first.first_s < short.first_s < long.first_s < inf


def test_the_same_seed_gives_the_same_outcomes() -> None:
    """Ties, arrivals at gateways and lost reports are all drawn from it."""
    exchange = Exchange(3, 0.5, 0.1, 0.1, hints=True)
    assert replayed("least-requests", 3.0, exchange) == replayed("least-requests", 3.0, exchange)


def test_a_request_that_fits_no_engine_is_refused_before_the_run() -> None:
    """It would wait for ever."""
    with pytest.raises(TraceError, match="fits no engine"):
        run(Workload("big", [Request(0.0, 900_000, 1)]), Fleet(), lambda e: Gateways(e, Knobs(), 1))


def test_capacity_is_where_the_share_is_crossed() -> None:
    """By bisection, and a straight line over the last step."""
    found = capacity(lambda rate: 1.2 - 0.1 * rate, 0.9, 1.0, 9.0, 0.1)
    assert pytest.approx(3.0, abs=0.01) == found
    assert capacity(lambda rate: 0.0, 0.9, 1.0, 9.0, 0.1) == 1.0
    assert capacity(lambda rate: 1.0, 0.9, 1.0, 9.0, 0.1) == 9.0


def test_an_interval_widens_with_the_spread() -> None:
    """Student's: five values have a t of 2.776."""
    mean, half = interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert mean == 3.0
    assert pytest.approx(1.963, abs=0.001) == half
    assert inf == interval([1.0]).half
