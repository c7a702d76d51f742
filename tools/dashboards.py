"""Writes the dashboards of `deploy/compose/grafana/dashboards` from the tables below.

Grafana's JSON takes some sixty lines to say a panel's place and look; what differs is a title, expressions
and a unit. After a change: `python tools/dashboards.py`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "deploy" / "compose" / "grafana" / "dashboards"
PROMETHEUS = {"type": "prometheus", "uid": "prometheus"}
JAEGER = {"type": "jaeger", "uid": "jaeger"}
WIDTH = 24
HEIGHT = 8
CHOSEN = 'model=~"$model", profile=~"$profile"'


@dataclass(frozen=True)
class Panel:
    """One panel: expressions with the legend of each."""

    title: str
    lines: Sequence[tuple[str, str]]
    unit: str = "short"
    about: str = ""
    kind: str = "timeseries"
    width: int = 8
    stacked: bool = False


def rate(metric: str, by: str, labels: str = "") -> str:
    """Sum of a counter's rate."""
    return f"sum by ({by}) (rate({metric}{{{labels}}}[$__rate_interval]))"


def quantile(share: float, metric: str, by: str = "model", labels: str = CHOSEN) -> str:
    """A quantile of a histogram."""
    return f"histogram_quantile({share}, {rate(f'{metric}_bucket', f'le, {by}' if by else 'le', labels)})"


def ratio(metric: str, of: str, labels: str = CHOSEN) -> str:
    """A counter's rate for each unit of another's."""
    return " / ".join(f"sum(rate({name}{{{labels}}}[$__rate_interval]))" for name in (metric, of))


RIGHT = 'outcome!~"invalid|denied|limited|cancelled"'
GOOD = 'sum(rate(enginehouse_requests_total{outcome="ok"}[$__rate_interval]))'
GRANTED = "(sum by (tenant, limit) (enginehouse_limit_leased) > 0)"

FLEET = [
    Panel("Gateways", [("count(enginehouse_requests_in_flight)", "")], kind="stat", width=4),
    Panel("Requests in flight", [("sum(enginehouse_requests_in_flight)", "")], kind="stat", width=4),
    Panel("Streams open", [("sum(enginehouse_streams_open)", "")], kind="stat", width=4),
    Panel("Requests waiting", [("sum(enginehouse_queued_requests)", "")], kind="stat", width=4),
    Panel(
        "Answered well",
        [(f"{GOOD} / sum(rate(enginehouse_requests_total{{{RIGHT}}}[$__rate_interval]))", "")],
        "percentunit",
        "Of the requests that were right and stayed: what clients got wrong, or left, does not count.",
        kind="stat",
        width=4,
    ),
    Panel("Registry reached", [("min(enginehouse_registry_connected)", "")], kind="stat", width=4),
    Panel(
        "Requests by outcome",
        [(rate("enginehouse_requests_total", "outcome", CHOSEN), "{{outcome}}")],
        "reqps",
        stacked=True,
    ),
    Panel(
        "Time to first token",
        [
            (quantile(q, "enginehouse_time_to_first_token_seconds"), f"{{{{model}}}} p{q * 100:g}")
            for q in (0.5, 0.95)
        ],
        "s",
    ),
    Panel(
        "Time between tokens",
        [(quantile(0.95, "enginehouse_inter_token_latency_seconds"), "{{model}} p95")],
        "s",
        "Mean of each request; p95 over requests.",
    ),
    Panel(
        "Tokens generated",
        [(rate("enginehouse_completion_tokens_total", "model", CHOSEN), "{{model}}")],
        "short",
        "Per second.",
        stacked=True,
    ),
    Panel(
        "Tokens read",
        [(rate("enginehouse_prompt_tokens_total", "model", CHOSEN), "{{model}}")],
        "short",
        "Prompt tokens of finished requests, per second.",
        stacked=True,
    ),
    Panel(
        "Tokens wasted",
        [(rate("enginehouse_wasted_tokens_total", "model", CHOSEN), "{{model}}")],
        "short",
        "Generated for requests that did not end well, per second.",
        stacked=True,
    ),
    Panel(
        "Waiting for room",
        [
            (f"sum by (model) (enginehouse_queued_requests{{{CHOSEN}}})", "{{model}} requests"),
            (f"sum by (model) (enginehouse_queued_tokens{{{CHOSEN}}})", "{{model}} tokens"),
        ],
    ),
    Panel("Wait in the queue", [(quantile(0.95, "enginehouse_queue_wait_seconds"), "{{model}} p95")], "s"),
    Panel(
        "Refused for want of room",
        [(rate("enginehouse_refusals_total", "model, reason", CHOSEN), "{{model}} {{reason}}")],
        "reqps",
        stacked=True,
    ),
    Panel(
        "Slots of endpoints",
        [
            ("sum by (endpoint) (enginehouse_slots_used)", "{{endpoint}} used"),
            ("sum by (endpoint) (enginehouse_slots_wanted)", "{{endpoint}} wanted"),
        ],
        about="Wanted above used: requests wait for it.",
    ),
    Panel(
        "Tries that failed",
        [
            (
                rate("enginehouse_attempts_total", "endpoint, outcome", 'outcome!="ok"'),
                "{{endpoint}} {{outcome}}",
            )
        ],
        "reqps",
        stacked=True,
    ),
    Panel(
        "Breakers",
        [("max by (endpoint) (enginehouse_breaker_state)", "{{endpoint}}")],
        about="0 closed, 1 half open, 2 open: the endpoint gets nothing.",
    ),
    Panel(
        "Moved to another endpoint",
        [
            (rate("enginehouse_retries_total", "model", CHOSEN), "{{model}} before the first token"),
            (rate("enginehouse_migrations_total", "model", CHOSEN), "{{model}} within the stream"),
        ],
        "reqps",
    ),
    Panel(
        "Limits of tenants in use",
        [
            (
                f"sum by (tenant, limit) (enginehouse_limit_wanted) / {GRANTED}",
                "{{tenant}} {{limit}}",
            )
        ],
        "percentunit",
        "Wanted of what is granted; above 100 % requests wait or are refused.",
    ),
    Panel(
        "Batch jobs",
        [
            ("max(enginehouse_batch_rows_waiting)", "rows waiting"),
            (rate("enginehouse_batch_rows_total", "outcome"), "{{outcome}} rows per second"),
        ],
    ),
    Panel("Rollouts", [("max by (model) (enginehouse_rollout_share)", "{{model}}")], "percentunit", width=6),
    Panel("Age of the registry's view", [("max(enginehouse_snapshot_age_seconds)", "oldest")], "s", width=6),
    Panel(
        "Event loop lag",
        [(quantile(0.99, "enginehouse_loop_lag_seconds", "instance", ""), "{{instance}} p99")],
        "s",
        "Above 10 ms the gateways want more CPU.",
        width=6,
    ),
    Panel(
        "Reports on slices that were lost",
        [(rate("enginehouse_slice_renewals_lost_total", "instance"), "{{instance}}")],
        width=6,
    ),
]

REQUESTS = "enginehouse_request_duration_seconds_count"
FIRST = "enginehouse_time_to_first_token_seconds"
QUEUE = ratio("enginehouse_queue_wait_seconds_sum", REQUESTS)
TTFT = ratio(f"{FIRST}_sum", f"{FIRST}_count")
WHOLE = ratio("enginehouse_request_duration_seconds_sum", REQUESTS)

ANATOMY = [
    Panel(
        "Where the time of a request goes",
        [
            (QUEUE, "queue of the gateway"),
            (f"{TTFT} - {QUEUE}", "endpoint, to the first token"),
            (f"{WHOLE} - {TTFT}", "stream"),
        ],
        "s",
        "Means over all requests. The queue is the gateway's; the engine's own is within the second part.",
        width=16,
        stacked=True,
    ),
    Panel(
        "Whole requests",
        [
            (quantile(q, "enginehouse_request_duration_seconds", ""), f"p{q * 100:g}")
            for q in (0.5, 0.95, 0.99)
        ],
        "s",
    ),
    Panel(
        "Time to first token",
        [(rate("enginehouse_time_to_first_token_seconds_bucket", "le", CHOSEN), "{{le}}")],
        "s",
        kind="heatmap",
    ),
    Panel(
        "Time between tokens",
        [(rate("enginehouse_inter_token_latency_seconds_bucket", "le", CHOSEN), "{{le}}")],
        "s",
        kind="heatmap",
    ),
    Panel(
        "Wait in the queue",
        [(rate("enginehouse_queue_wait_seconds_bucket", "le", CHOSEN), "{{le}}")],
        "s",
        "Of requests that had to wait.",
        kind="heatmap",
    ),
    Panel(
        "Tokens of a request",
        [
            (
                ratio("enginehouse_prompt_tokens_total", REQUESTS),
                "read",
            ),
            (
                ratio("enginehouse_completion_tokens_total", REQUESTS),
                "generated",
            ),
        ],
        about="Means.",
    ),
    Panel(
        "Tries for a request",
        [
            (
                ratio("enginehouse_attempts_total", "enginehouse_requests_total", ""),
                "tries",
            )
        ],
        about="1: every request was served by the first endpoint it was sent to.",
    ),
    Panel(
        "Clients that left",
        [(rate("enginehouse_cancellations_total", "phase"), "{{phase}}")],
        "reqps",
        "By how far their request had come.",
        stacked=True,
    ),
]


def dashboard(
    uid: str, title: str, about: str, panels: Sequence[Panel], traces: bool = False
) -> dict[str, Any]:
    """Grafana's JSON."""
    placed, x, y = [], 0, 0
    for number, panel in enumerate(panels, 1):
        height = 4 if panel.kind == "stat" else HEIGHT
        if x + panel.width > WIDTH:
            x, y = 0, y + placed[-1]["gridPos"]["h"]
        placed.append(_panel(number, panel, {"x": x, "y": y, "w": panel.width, "h": height}))
        x += panel.width
    if traces:
        place = {"x": 0, "y": y + HEIGHT, "w": WIDTH, "h": 10}
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


def rendered() -> dict[str, str]:
    """Text of each dashboard's file, by its name."""
    boards = [
        dashboard("fleet", "Enginehouse: fleet", "What the whole fleet does, and what it waits for.", FLEET),
        dashboard(
            "anatomy",
            "Enginehouse: request anatomy",
            "Where the time of requests goes.",
            ANATOMY,
            traces=True,
        ),
    ]
    return {f"{board['uid']}.json": json.dumps(board, indent=1) + "\n" for board in boards}


def main() -> int:
    """Write them."""
    for name, text in rendered().items():
        (FOLDER / name).write_text(text)
        sys.stdout.write(f"{FOLDER / name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
