"""Replays of scaling: rivals keep their rules, the reference's figures come out, goals hold in small."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from controller.replay import rivals
from controller.replay.comparison import KPA, ORACLE, OWN, STATIC, Comparison, compare
from controller.replay.fluid import Engines, State, run
from controller.replay.report import printed, write
from controller.replay.table import SCENARIOS, Scenario, Task, compared, result
from controller.replay.traffic import BUNDLED, Traffic, bundled, has_rates, of_requests, read_rates
from router.replay.workload import TraceError
from router.replay.workload import bundled as bundled_requests


def scenario(trace: str) -> Scenario:
    return next(one for one in SCENARIOS if one.trace == trace)


def traffic_of(trace: str, days: float | None = None, seed: int = 1) -> Traffic:
    one = scenario(trace)
    return bundled(trace).traffic(seed, 1 / one.requests_per_s, one.scale, days or one.days)


def engines(trace: str, cold_start_s: int) -> Engines:
    return Engines(cold_start_s, request_s=1 / scenario(trace).requests_per_s)


def level(load: float, seconds: int) -> Traffic:
    return Traffic("level", np.full(seconds, load), np.full(seconds, load))


@pytest.mark.parametrize(
    ("trace", "cold_start_s", "of_static"),
    [("m-large", 30, 59.8), ("m-large", 300, 63.0), ("deepseek-r1", 30, 45.6), ("deepseek-r1", 300, 47.8)],
)
def test_the_clairvoyant_fleet_is_the_references(trace: str, cold_start_s: int, of_static: float) -> None:
    """GPU-hours in % of the smallest fixed fleet's, from the project's earlier simulation."""
    traffic = traffic_of(trace)
    _, fixed = rivals.static(traffic, engines(trace, cold_start_s))
    oracle = rivals.clairvoyant(traffic, engines(trace, cold_start_s))
    assert 100 * oracle.replica_s / fixed.replica_s == pytest.approx(of_static, rel=0.06)
    assert oracle.attainment > 0.999


@pytest.fixture(scope="module")
def morning() -> Comparison:
    """Six hours of a reasoning model."""
    return compare(traffic_of("deepseek-r1", 0.25), engines("deepseek-r1", 100), 1)


def test_the_goals_hold_in_small(morning: Comparison) -> None:
    assert morning.of_oracle(OWN) <= 1.12
    assert morning.ways[OWN].attainment >= 0.995
    assert morning.ups_of_kpa <= 0.2
    assert morning.of_oracle(KPA) > 1.1


def test_the_goals_hold_for_a_recorded_hour_of_clumps() -> None:
    """Azure's requests, few and of very different lengths, at the cold start where room costs most."""
    hour = compared(Task(scenario("azure"), 30, 1))
    assert result([[hour]])["ok"]
    own = hour.ways[OWN]
    dearer = hour._replace(ways={**hour.ways, OWN: own._replace(replica_s=1.1 * own.replica_s)})
    assert result([[dearer]])["missed"] == ["azure, 30 s: gpu_hours_of_clairvoyant"]


def test_what_is_told_is_written(morning: Comparison, tmp_path: Path) -> None:
    write([morning], tmp_path)
    with (tmp_path / "scaling.csv").open(encoding="utf-8") as file:
        rows = {row["way"]: row for row in csv.DictReader(file)}
    assert float(rows[ORACLE]["of_clairvoyant"]) == 1
    assert float(rows[STATIC]["of_static"]) == 1
    assert int(rows[OWN]["scale_ups"]) == morning.ways[OWN].ups
    with (tmp_path / "timeline-deepseek-r1-100s.csv").open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 6 * 60
    drawn = ElementTree.parse(tmp_path / "timeline-deepseek-r1-100s.svg").getroot()
    assert sum(one.tag.endswith("polyline") for one in drawn) == 3
    assert printed([[morning]]).row_count == len(morning.ways)


def test_work_waits_first_come_first_served() -> None:
    """One replica too few for ten seconds: those who come then wait, the rest does not."""
    work = np.array([1.0] * 10 + [2.0] * 10 + [0.5] * 30)
    traffic = Traffic("t", work, work)

    class Still:
        period_s = 5

        def look(self, state: State) -> int:
            return state.up

    found = run(traffic, Engines(10), Still(), 1)
    assert found.replica_s == 50
    late = 1 - found.attainment
    assert 0.3 < late < 0.6
    assert run(traffic, Engines(10), Still(), 2).attainment == 1


def test_replicas_take_their_time_and_are_paid_for_from_the_start() -> None:
    class Two:
        period_s = 5

        def look(self, state: State) -> int:
            return 2

    found = run(level(0.5, 100), Engines(30), Two(), 1)
    assert (found.ups, found.starts) == (1, 1)
    assert found.replica_s == 100 + 100 - 6
    assert found.ready[35] == 1
    assert found.ready[36] == 2


def state(second: int, ready: int, *concurrencies: float) -> State:
    sums = [0.0]
    for one in concurrencies:
        sums.append(sums[-1] + one)
    return State(second, ready, 0, sums, 0.0, 0.0, 0.0, 0.0)


def test_knative_panics_at_twice_what_is_ready_and_holds_for_a_window() -> None:
    kpa = rivals.Kpa()
    calm = [1.3] * 60
    assert kpa.look(state(59, 2, *calm)) == 2
    assert kpa.look(state(65, 2, *calm, *[7.0] * 6)) == 10
    assert kpa.look(state(100, 2, *calm, *[7.0] * 6, *[1.3] * 35)) == 10
    assert kpa.look(state(130, 2, *calm, *[7.0] * 6, *[1.3] * 65)) < 10


def test_hpa_goes_down_only_after_its_window() -> None:
    hpa = rivals.Hpa()
    assert hpa.look(state(15, 10, *[7.0] * 16)) == 10
    assert hpa.look(state(30, 10, *[2.0] * 31)) == 10
    assert hpa.look(state(330, 10, *[2.0] * 331)) == 3


def test_the_static_fleet_is_the_smallest() -> None:
    traffic = traffic_of("deepseek-r1", 0.25)
    asked = engines("deepseek-r1", 30)
    count, fixed = rivals.static(traffic, asked)
    assert fixed.attainment >= 0.99
    smaller = np.full(traffic.seconds, count - 1.0)
    assert rivals.attained(traffic, smaller, asked.wait_s) < 0.99


@pytest.mark.parametrize("name", BUNDLED)
def test_traffic_is_as_its_rates_say(name: str) -> None:
    rates = bundled(name)
    traffic = rates.traffic(3, 0.5, 0.1, 1)
    assert traffic.requests.mean() == pytest.approx(0.1 * rates.each[:144].mean(), rel=0.02)
    assert traffic.work.sum() == pytest.approx(0.5 * traffic.requests.sum())
    again = rates.traffic(4, 0.5, 0.1, 1)
    assert (again.requests != traffic.requests).any()


def test_published_rates_are_summed_over_clients(tmp_path: Path) -> None:
    path = tmp_path / "chunk.csv.gz"
    text = (
        "client_id,timestamp,rate,cv,pat,pat_arg1,pat_arg2\n1,0,2,1,Gamma,1,1\n2,0,3,1,,0,0\n1,600,7,1,,0,0\n"
    )
    path.write_bytes(gzip.compress(text.encode()))
    assert has_rates(path)
    assert read_rates(path).each.tolist() == [5, 7]
    assert not has_rates(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("timestamp,rate\n0,x\n", "line 2"),
        ("timestamp,rate\n0,-1\n", "line 2"),
        ("timestamp,rate\n0,0\n", "no requests"),
        ("rate\n1\n", "line 2"),
    ],
)
def test_bad_rates_are_named(text: str, what: str, tmp_path: Path) -> None:
    path = tmp_path / "rates.csv"
    path.write_text(text)
    with pytest.raises(TraceError, match=what):
        read_rates(path)


def test_requests_weigh_by_their_tokens() -> None:
    workload = bundled_requests("azure").first(300)
    traffic = of_requests(workload, lambda prompt, answer: prompt + 2 * answer, scale=3)
    assert traffic.requests.sum() == 3 * len(workload.requests)
    tokens = sum(one.prompt_tokens + 2 * one.output_tokens for one in workload.requests)
    assert traffic.work.sum() == pytest.approx(3 * tokens)
