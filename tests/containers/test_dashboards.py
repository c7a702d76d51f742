"""The dashboards show metrics that there are, by labels that these have."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from telemetry.instruments import Instruments

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "compose" / "grafana" / "dashboards"
BOARDS = sorted(FOLDER.glob("*.json"))
WORDS = {"sum", "by", "rate", "count", "min", "max", "histogram_quantile", "le"}
TARGET_LABELS = {"instance"}
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}


def metrics() -> dict[str, frozenset[str]]:
    """Every series name that the code exposes, with its labels."""
    collectors = [one for one in vars(Instruments()).values() if hasattr(one, "_labelnames")]
    return {
        f"{family.name}{suffix}": frozenset(collector._labelnames)
        for collector in collectors
        for family in collector.describe()
        for suffix in SUFFIXES[family.type]
    }


KNOWN = metrics()


def expressions(board: Path) -> list[str]:
    panels = json.loads(board.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"] if "expr" in target]


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


def test_both_dashboards_are_as_their_tables_say() -> None:
    """`python tools/dashboards.py` writes them."""
    rendered = _tool().rendered()
    assert {path.name: path.read_text() for path in BOARDS} == rendered
    assert set(rendered) == {"fleet.json", "anatomy.json"}


def _tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dashboards", ROOT / "tools" / "dashboards.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["dashboards"] = module
    spec.loader.exec_module(module)
    return module
