"""The table of `make replay`, in its quick form: five minutes of the trace, one seed."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from model_registry.knobs import Knobs
from router.replay.flood import SETTINGS, FloodRow
from router.replay.overload import RATES, OverloadRow
from router.replay.report import Comparison, Row, printed_floods, printed_overloads, write, write_rows
from router.replay.setups import Setup
from router.replay.statistics import Summary
from router.replay.table import BARS, GOSSIPING, OURS, Table, compared, result


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


def overloads(goodput: float = 8.0, critical: float = 0.97) -> list[OverloadRow]:
    """With two seeds."""
    refused = {"shed": 3, "predicted_late": 1}
    return [
        OverloadRow(rate, seed, goodput, 60_000, critical, 0.4, refused) for rate in RATES for seed in (1, 2)
    ]


def floods(
    window: int | None = None, gap: float = 30_000, slowdown: float = 4.0, throughput: float = 1.0
) -> list[FloodRow]:
    """With two seeds. What is given is so at one window only, and good at the others."""
    rows = []
    for each, rate in SETTINGS:
        bad = each == window
        found = (gap, slowdown, throughput) if bad else (30_000, 4.0, 1.0)
        rows += [FloodRow(each, rate, seed, found[0], 8e6, found[1] * 0.5, 0.5, found[2]) for seed in (1, 2)]
    return rows


def whole(ours: float, gossiping: float) -> Table:
    """All else is good."""
    return Table(comparison(ours, gossiping), overloads(), floods())


def test_the_quick_form_ranks_policies_below_the_oracle() -> None:
    """Every step of the whole table, in two processes, on a little of the trace."""
    setups = [Setup(name, Knobs(policy=name)) for name in ("round-robin", "product")]
    found = compared(setups, seeds=1, processes=2, first_s=240)
    turns, product = (found.capacity_percent(found.row(name)).mean for name in ("round-robin", "product"))
    assert 0 < turns < product < 110
    assert 0.5 < found.hits_percent(found.row("product")).mean / 100 < 1


def test_every_bar_is_judged() -> None:
    """`ok` only where all are met; what is missed is named."""
    good = result(whole(4.9, 4.8))
    assert (good["ok"], good["missed"]) == (True, [])
    assert BARS.keys() <= good.keys()
    bad = result(whole(4.0, 3.0))
    assert bad["missed"] == ["capacity_percent_of_oracle", "four_gateways_percent_of_one"]
    assert not bad["ok"]


def test_overload_is_judged_at_both_rates() -> None:
    """Goodput that is enough at the lower one may be too little at the higher one."""
    table = whole(4.9, 4.8)
    few = result(table._replace(overloads=overloads(goodput=6.5)))
    assert few["missed"] == ["overload_10.2_goodput_requests_per_s"]
    late = result(table._replace(overloads=overloads(critical=0.94)))
    assert late["missed"] == ["overload_6.8_critical_percent", "overload_10.2_critical_percent"]


@pytest.mark.parametrize("window", [window for window, _ in SETTINGS])
def test_a_flood_is_judged_by_the_worst_window(window: int) -> None:
    """Each of its bars."""
    table = whole(4.9, 4.8)
    for floods_, missed in (
        (floods(window, gap=65_000), "flood_gap_tokens"),
        (floods(window, slowdown=8.1), "flood_victims_p99_ttft_of_alone"),
        (floods(window, throughput=0.97), "flood_percent_of_fcfs"),
    ):
        assert result(table._replace(floods=floods_))["missed"] == [missed]


def test_overload_and_floods_are_printed_by_rate_and_window_and_written_by_run(tmp_path: Path) -> None:
    """Seeds become one line with an interval on the terminal, and are lines of their own in the files."""
    console = Console(width=120, file=io.StringIO(), record=True)
    console.print(printed_overloads(overloads()))
    console.print(printed_floods(floods()))
    text = console.export_text()
    assert "97 ± 0" in text
    assert all(f"{window}, {rate:g} req/s" in text for window, rate in SETTINGS)
    write_rows(overloads(), tmp_path / "overload.csv")
    write_rows(floods(), tmp_path / "flood.csv")
    with (tmp_path / "overload.csv").open(encoding="utf-8") as file:
        assert [row["refused"] for row in csv.DictReader(file)] == ["shed=3 predicted_late=1"] * 4
    with (tmp_path / "flood.csv").open(encoding="utf-8") as file:
        assert [(row["window"], row["seed"]) for row in csv.DictReader(file)][:2] == [
            ("24", "1"),
            ("24", "2"),
        ]


def test_csv_and_picture_show_every_setup(tmp_path: Path) -> None:
    """One line a seed, one bar a setup."""
    write(comparison(4.9, 4.8), tmp_path / "new")
    with (tmp_path / "new" / "replay.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(r["setup"], r["seed"]) for r in rows[:2]] == [("pooled oracle", "1"), ("pooled oracle", "2")]
    assert pytest.approx(5.0) == float(rows[3]["capacity_requests_per_s"])
    texts = [e.text for e in ElementTree.parse(tmp_path / "new" / "replay.svg").iter() if e.text]
    assert {"pooled oracle", OURS, GOSSIPING} <= set(texts)
