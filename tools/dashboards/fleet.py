"""The dashboard *fleet*: what the whole fleet does, and what it waits for."""

from __future__ import annotations

from tools.dashboards.panels import CHOSEN, Panel, Row, quantile, rate, some, stat
from tools.dashboards.scaling import ENGINES, MEMORY, SCALING


def answered_well() -> str:
    """Of the requests that were right and stayed."""
    good, judged = (
        f"sum(rate(enginehouse_requests_total{{{outcomes}}}[$__rate_interval]))"
        for outcomes in ('outcome="ok"', 'outcome!~"invalid|denied|limited|cancelled"')
    )
    return f"({good} or {judged} * 0) / {judged}"


FIRST_TOKENS = rate("enginehouse_first_tokens_total", "model, profile", CHOSEN)
LATE = rate("enginehouse_first_tokens_total", "model, profile", f'{CHOSEN}, target="missed"')
GRANTED = "(sum by (tenant, limit) (enginehouse_limit_leased) > 0)"

REQUESTS: list[Panel | Row] = [
    Row("Requests"),
    stat("Gateways", "count(enginehouse_requests_in_flight)"),
    stat("Requests in flight", "sum(enginehouse_requests_in_flight)"),
    stat("Streams open", "sum(enginehouse_streams_open)"),
    stat("Requests waiting", "sum(enginehouse_queued_requests) or vector(0)"),
    stat(
        "Answered well",
        answered_well(),
        "percentunit",
        "Of the requests that were right and stayed: what clients got wrong, or left, does not count.",
        "no requests yet",
    ),
    stat("Registry reached", "min(enginehouse_registry_connected)"),
    Panel(
        "Requests by outcome",
        [(some("enginehouse_requests_total", "outcome", CHOSEN), "{{outcome}}")],
        "reqps",
        quiet="no requests yet",
        stacked=True,
    ),
    Panel(
        "Time to first token",
        [
            (quantile(q, "enginehouse_time_to_first_token_seconds"), f"{{{{model}}}} p{q * 100:g}")
            for q in (0.5, 0.95)
        ],
        "s",
        quiet="no requests yet",
    ),
    Panel(
        "First tokens later than their target",
        [(f"{LATE} / {FIRST_TOKENS}", "{{model}} {{profile}}")],
        "percentunit",
        "Of streamed answers. The target is the deployment's (scaling.ttft_s), else the profile's.",
        "no answer was streamed yet",
    ),
    Panel(
        "Time between tokens",
        [(quantile(0.95, "enginehouse_inter_token_latency_seconds"), "{{model}} p95")],
        "s",
        "Mean of each request; p95 over requests.",
        "no requests yet",
    ),
    Panel(
        "Tokens generated",
        [(rate("enginehouse_completion_tokens_total", "model", CHOSEN), "{{model}}")],
        "short",
        "Per second.",
        "no requests yet",
        stacked=True,
    ),
    Panel(
        "Tokens read",
        [(rate("enginehouse_prompt_tokens_total", "model", CHOSEN), "{{model}}")],
        "short",
        "Prompt tokens of finished requests, per second.",
        "no requests yet",
        stacked=True,
    ),
    Panel(
        "Tokens wasted",
        [(rate("enginehouse_wasted_tokens_total", "model", CHOSEN), "{{model}}")],
        "short",
        "Generated for requests that did not end well, per second.",
        "no requests yet",
        stacked=True,
    ),
    Panel(
        "Waiting for room",
        [
            (f"sum by (model) (enginehouse_queued_requests{{{CHOSEN}}})", "{{model}} requests"),
            (f"sum by (model) (enginehouse_queued_tokens{{{CHOSEN}}})", "{{model}} tokens"),
        ],
        quiet="no request has waited yet",
    ),
    Panel(
        "Wait in the queue",
        [(quantile(0.95, "enginehouse_queue_wait_seconds"), "{{model}} p95")],
        "s",
        quiet="no request has waited yet",
    ),
    Panel(
        "Refused for want of room",
        [(some("enginehouse_refusals_total", "model, reason", CHOSEN), "{{model}} {{reason}}")],
        "reqps",
        quiet="none was refused",
        stacked=True,
    ),
    Panel(
        "Limits of tenants in use",
        [(f"sum by (tenant, limit) (enginehouse_limit_wanted) / {GRANTED}", "{{tenant}} {{limit}}")],
        "percentunit",
        "Wanted of what is granted; above 100 % requests wait or are refused.",
        "no tenant that has limits was here",
    ),
    Panel(
        "Batch jobs",
        [
            ("max(enginehouse_batch_rows_waiting)", "rows waiting"),
            (rate("enginehouse_batch_rows_total", "outcome"), "{{outcome}} rows per second"),
        ],
        quiet="no row has run yet",
    ),
]

ENDPOINTS: list[Panel | Row] = [
    Row("Endpoints"),
    Panel(
        "Slots of endpoints",
        [
            ("sum by (endpoint) (enginehouse_slots_used)", "{{endpoint}} used"),
            ("sum by (endpoint) (enginehouse_slots_wanted)", "{{endpoint}} wanted"),
        ],
        about="Wanted above used: requests wait for it.",
        quiet="no endpoint is ready",
    ),
    Panel(
        "Tries that failed",
        [
            (
                some("enginehouse_attempts_total", "endpoint, outcome", 'outcome!="ok"'),
                "{{endpoint}} {{outcome}}",
            )
        ],
        "reqps",
        quiet="no try has failed",
        stacked=True,
    ),
    Panel(
        "Breakers",
        [("max by (endpoint) (enginehouse_breaker_state)", "{{endpoint}}")],
        about="0 closed, 1 half open, 2 open: the endpoint gets nothing.",
        quiet="no endpoint was tried yet",
    ),
    Panel(
        "Moved to another endpoint",
        [
            (rate("enginehouse_retries_total", "model", CHOSEN), "{{model}} before the first token"),
            (rate("enginehouse_migrations_total", "model", CHOSEN), "{{model}} within the stream"),
        ],
        "reqps",
        quiet="no requests yet",
    ),
]

GATEWAYS: list[Panel | Row] = [
    Row("Gateways"),
    Panel("Age of the registry's view", [("max(enginehouse_snapshot_age_seconds)", "oldest")], "s"),
    Panel(
        "Event loop lag",
        [(quantile(0.99, "enginehouse_loop_lag_seconds", "instance", ""), "{{instance}} p99")],
        "s",
        "Above 10 ms the gateways want more CPU.",
    ),
    Panel(
        "Reports on slices that were lost",
        [(rate("enginehouse_slice_renewals_lost_total", "instance"), "{{instance}}")],
    ),
]

FLEET: list[Panel | Row] = [*REQUESTS, *ENDPOINTS, *SCALING, *MEMORY, *ENGINES, *GATEWAYS]
