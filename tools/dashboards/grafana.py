"""Grafana's JSON of a dashboard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tools.dashboards.panels import Panel, Row

PROMETHEUS = {"type": "prometheus", "uid": "prometheus"}
JAEGER = {"type": "jaeger", "uid": "jaeger"}
WIDTH = 24
HEIGHT = 8


def dashboard(
    uid: str, title: str, about: str, shown: Sequence[Panel | Row], traces: bool = False
) -> dict[str, Any]:
    """Panels from left to right, and below where there is no room; `traces`: a list of them at the end."""
    placed: list[dict[str, Any]] = []
    x = y = height = 0
    for number, one in enumerate(shown, 1):
        width = WIDTH if isinstance(one, Row) else one.width
        if x + width > WIDTH:
            x, y = 0, y + height
        height = 1 if isinstance(one, Row) else 4 if one.kind == "stat" else HEIGHT
        place = {"x": x, "y": y, "w": width, "h": height}
        placed.append(_row(number, one, place) if isinstance(one, Row) else _panel(number, one, place))
        x += width
    if traces:
        place = {"x": 0, "y": y + height, "w": WIDTH, "h": 10}
        placed.append(_traces(len(placed) + 1, place))
    return {
        "uid": uid,
        "title": title,
        "description": about,
        "tags": ["enginehouse"],
        "editable": True,
        "schemaVersion": 39,
        "version": 1,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "timezone": "browser",
        "graphTooltip": 1,
        "templating": {"list": [_variable("model"), _variable("profile")]},
        "panels": placed,
    }


def _row(number: int, row: Row, place: dict[str, int]) -> dict[str, Any]:
    return {
        "id": number,
        "type": "row",
        "title": row.title,
        "collapsed": False,
        "gridPos": place,
        "panels": [],
    }


def _panel(number: int, panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    targets = [
        {
            "refId": chr(ord("A") + index),
            "datasource": PROMETHEUS,
            "expr": expression,
            "legendFormat": legend or "__auto",
            "format": "heatmap" if panel.kind == "heatmap" else "time_series",
        }
        for index, (expression, legend) in enumerate(panel.lines)
    ]
    custom = {"stacking": {"mode": "normal"}, "fillOpacity": 25} if panel.stacked else {"fillOpacity": 5}
    defaults: dict[str, Any] = {"unit": panel.unit}
    if panel.kind == "timeseries":
        defaults |= {"min": 0, "custom": custom}
    if panel.quiet:
        defaults["noValue"] = panel.quiet
    options = {"calculate": False, "yAxis": {"unit": panel.unit}} if panel.kind == "heatmap" else {}
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": PROMETHEUS,
        "gridPos": place,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": targets,
    }


def _traces(number: int, place: dict[str, int]) -> dict[str, Any]:
    return {
        "id": number,
        "type": "table",
        "title": "Latest traces",
        "description": "Each opens as one request: queue, tries, first token, stream.",
        "datasource": JAEGER,
        "gridPos": place,
        "fieldConfig": {"defaults": {}, "overrides": []},
        "options": {},
        "targets": [
            {"refId": "A", "datasource": JAEGER, "queryType": "search", "service": "enginehouse", "limit": 50}
        ],
    }


def _variable(label: str) -> dict[str, Any]:
    query = f"label_values(enginehouse_requests_total, {label})"
    return {
        "name": label,
        "label": label,
        "type": "query",
        "datasource": PROMETHEUS,
        "query": {"query": query, "refId": label},
        "definition": query,
        "refresh": 2,
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
    }
