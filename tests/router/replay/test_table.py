"""The comparison of `make replay`, in its quick form: five minutes of the trace, one seed."""

from __future__ import annotations

import csv
from pathlib import Path
from xml.etree import ElementTree

import pytest

from model_registry.knobs import Knobs
from router.replay.report import Comparison, Row, write
from router.replay.setups import Setup
from router.replay.statistics import Summary
from router.replay.table import BARS, GOSSIPING, OURS, compared, result


def summary(hits: float, ttft_s: float, slowdown: float) -> Summary:
    return Summary(10, 0, 0.95, 4.0, hits, ttft_s, 2.0, slowdown, 0.02)


def comparison(ours: float, gossiping: float) -> Comparison:
    """Of an oracle with a capacity of 5 requests per second."""
    return Comparison(
        4.25,
        [
            Row("pooled oracle", [5.0, 5.0], [summary(0.24, 0.8, 1.4)] * 2),
            Row(OURS, [ours, ours + 0.1], [summary(0.22, 0.84, 1.7)] * 2),
            Row(GOSSIPING, [gossiping, gossiping], [summary(0.2, 0.9, 2.0)] * 2),
        ],
    )


def test_the_quick_form_ranks_policies_below_the_oracle() -> None:
    """Every step of the whole table, in two processes, on a little of the trace."""
    setups = [Setup(name, Knobs(policy=name)) for name in ("round-robin", "product")]
    found = compared(setups, seeds=1, processes=2, first_s=240)
    turns, product = (found.capacity_percent(found.row(name)).mean for name in ("round-robin", "product"))
    assert 0 < turns < product < 110
    assert 0.5 < found.hits_percent(found.row("product")).mean / 100 < 1


def test_every_bar_is_judged() -> None:
    """`ok` only where all are met; what is missed is named."""
    good = result(comparison(4.9, 4.8))
    assert (good["ok"], good["missed"]) == (True, [])
    assert BARS.keys() <= good.keys()
    bad = result(comparison(4.0, 3.0))
    assert bad["missed"] == ["capacity_percent_of_oracle", "four_gateways_percent_of_one"]
    assert not bad["ok"]


def test_csv_and_picture_show_every_setup(tmp_path: Path) -> None:
    """One line a seed, one bar a setup."""
    write(comparison(4.9, 4.8), tmp_path / "new")
    with (tmp_path / "new" / "replay.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(r["setup"], r["seed"]) for r in rows[:2]] == [("pooled oracle", "1"), ("pooled oracle", "2")]
    assert pytest.approx(5.0) == float(rows[3]["capacity_requests_per_s"])
    texts = [e.text for e in ElementTree.parse(tmp_path / "new" / "replay.svg").iter() if e.text]
    assert {"pooled oracle", OURS, GOSSIPING} <= set(texts)
