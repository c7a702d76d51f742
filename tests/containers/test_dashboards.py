"""The dashboards show metrics that there are, by labels that these have."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from prometheus_client.registry import Collector

from bench.containers.client import DASHBOARDS, panels_of
from controller.metrics.collector import FleetCollector
from telemetry.instruments import Instruments
from tests.controller.metrics.test_page import NOTHING
from tools.dashboards.__main__ import rendered

BOARDS = sorted(DASHBOARDS.glob("*.json"))
WORDS = {"sum", "by", "rate", "increase", "count", "min", "max", "histogram_quantile", "le", "or", "vector"}
TARGET_LABELS = {"instance"}
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}


def metrics() -> dict[str, frozenset[str]]:
    """Every series name that gateways and controllers expose, with its labels."""
    found: dict[str, frozenset[str]] = {}
    collectors: list[Collector] = [one for one in vars(Instruments()).values() if hasattr(one, "_labelnames")]
    for collector in (*collectors, FleetCollector(NOTHING)):
        for family in getattr(collector, "describe", collector.collect)():
            labels = getattr(family, "_labelnames", None) or getattr(collector, "_labelnames", ())
            for suffix in SUFFIXES[family.type]:
                name = f"{family.name}{suffix}"
                found[name] = found.get(name, frozenset()) | frozenset(labels)
    return found


KNOWN = metrics()


def expressions(board: Path) -> list[str]:
    return [target["expr"] for panel in panels_of(board) for target in panel["targets"]]


@pytest.mark.parametrize("board", BOARDS, ids=lambda path: path.stem)
def test_every_metric_is_one_of_ours(board: Path) -> None:
    """And every label one of that metric; nothing else is asked for."""
    for expression in expressions(board):
        bare = re.sub(r'"[^"]*"', '""', expression)
        names = set(re.findall(r"enginehouse_\w+", bare))
        assert names
        assert names <= KNOWN.keys()
        allowed = {label for name in names for label in KNOWN[name]} | TARGET_LABELS | WORDS
        words = set(re.findall(r"[a-z_]+\w*", re.sub(r"\[[^]]*\]", "", bare))) - names
        assert words <= allowed, expression
        for name, matchers in re.findall(r"(enginehouse_\w+)\{([^}]*)\}", bare):
            assert set(re.findall(r"(\w+)(?==|!)", matchers)) <= KNOWN[name] | TARGET_LABELS


@pytest.mark.parametrize("board", BOARDS, ids=lambda path: path.stem)
def test_panels_have_a_place_of_their_own(board: Path) -> None:
    """Within Grafana's 24 columns, none over another, each with an id of its own."""
    panels = json.loads(board.read_text())["panels"]
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_what_an_operator_asks_of_scaling_is_on_the_fleets_dashboard() -> None:
    """Replicas, load, cold starts, memory, rollouts and builds: every metric of a controller but two."""
    shown = set(re.findall(r"enginehouse_\w+", "".join(expressions(DASHBOARDS / "fleet.json"))))
    families = {family.name for family in FleetCollector(NOTHING).collect()}
    told = {name if name in KNOWN else f"{name}_total" for name in families}
    assert told - shown == {"enginehouse_snapshot_version", "enginehouse_replica_memory_bytes"}


def test_both_dashboards_are_as_their_tables_say() -> None:
    """`python -m tools.dashboards` writes them."""
    written = rendered()
    assert {path.name: path.read_text() for path in BOARDS} == written
    assert set(written) == {"fleet.json", "anatomy.json"}
