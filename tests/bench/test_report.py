"""Figures are judged within one run, and nothing that was not measured is judged."""

from __future__ import annotations

import pytest

from bench.__main__ import chosen
from bench.bars import BARS, judge
from bench.build import BenchError
from bench.extras import EXTRAS
from bench.report import Measured, markdown, result
from bench.scenarios import SCENARIOS


def measured(gateway_rps: float = 300.0) -> Measured:
    seen = Measured()
    for factor in (0.9, 1.0, 5.0):
        seen.add("openai", "direct", {"rate_p50_ms": 0.2 * factor})
        seen.add("openai", "naive", {"requests_per_cpu_s": 100.0 * factor, "rate_p50_ms": 0.5})
        seen.add("openai", "gateway", {"requests_per_cpu_s": gateway_rps * factor, "rate_p50_ms": 0.7})
    return seen


def test_a_bar_is_judged_by_medians() -> None:
    verdicts = {verdict.bar.figure: verdict for verdict in judge(measured().medians())}
    assert verdicts["requests_per_cpu_s"].value == pytest.approx(3.0)
    assert verdicts["rate_p50_ms"].value == pytest.approx(0.5)
    assert all(verdict.ok for verdict in verdicts.values())


def test_what_was_not_measured_is_not_judged() -> None:
    assert len(judge(measured().medians())) == len(BARS) - 1
    assert judge({"openai": {"naive": {"requests_per_cpu_s": 1.0}}}) == []


def test_a_missed_bar_makes_the_run_fail() -> None:
    slow = measured(gateway_rps=149.0)
    assert not result(slow)["ok"]
    assert "MISSED: openai: requests_per_cpu_s 1.49 x naive (bar 1.5 x)" in markdown(slow)


def test_a_failed_request_makes_the_run_fail() -> None:
    seen = measured()
    assert result(seen)["ok"]
    seen.failures.append("openai gateway requests: one answer too few")
    assert not result(seen)["ok"]


def test_ratios_are_told_against_every_subject() -> None:
    assert result(measured())["ratios"]["openai"]["requests_per_cpu_s"] == {"naive": pytest.approx(3.0)}


def test_only_leaves_what_it_names() -> None:
    rows, scenarios, further = chosen("triton,gateway,requests", [])
    assert [(row.lane, row.name) for row in rows] == [("triton", "gateway")]
    assert (scenarios, further) == (["requests"], [])


def test_only_a_further_benchmark_measures_no_rows() -> None:
    assert chosen("transports", []) == ([], [], ["transports"])


def test_all_is_measured_unless_something_is_named() -> None:
    rows, scenarios, further = chosen("", [])
    assert {"direct", "naive", "gateway"} <= {row.name for row in rows if row.lane == "openai"}
    assert {"direct", "naive", "naive relay", "gateway"} == {row.name for row in rows if row.lane == "triton"}
    assert scenarios == list(SCENARIOS)
    assert further == list(EXTRAS)


def test_only_refuses_what_it_does_not_know() -> None:
    with pytest.raises(BenchError, match=r"--only names trition; known are .*triton"):
        chosen("trition", [])
