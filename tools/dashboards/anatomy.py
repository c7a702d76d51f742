"""The dashboard *request anatomy*: where the time of requests goes."""

from __future__ import annotations

from tools.dashboards.panels import CHOSEN, Panel, quantile, rate, ratio, some

REQUESTS = "enginehouse_request_duration_seconds_count"
FIRST = "enginehouse_time_to_first_token_seconds"
QUEUE = ratio("enginehouse_queue_wait_seconds_sum", REQUESTS)
TTFT = ratio(f"{FIRST}_sum", f"{FIRST}_count")
QUIET = "no requests yet"
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
        QUIET,
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
        quiet=QUIET,
    ),
    Panel(
        "Time to first token",
        [(rate("enginehouse_time_to_first_token_seconds_bucket", "le", CHOSEN), "{{le}}")],
        "s",
        quiet=QUIET,
        kind="heatmap",
    ),
    Panel(
        "Time between tokens",
        [(rate("enginehouse_inter_token_latency_seconds_bucket", "le", CHOSEN), "{{le}}")],
        "s",
        quiet=QUIET,
        kind="heatmap",
    ),
    Panel(
        "Wait in the queue",
        [(rate("enginehouse_queue_wait_seconds_bucket", "le", CHOSEN), "{{le}}")],
        "s",
        "Of requests that had to wait.",
        "no request has waited yet",
        kind="heatmap",
    ),
    Panel(
        "Tokens of a request",
        [
            (ratio("enginehouse_prompt_tokens_total", REQUESTS), "read"),
            (ratio("enginehouse_completion_tokens_total", REQUESTS), "generated"),
        ],
        about="Means.",
        quiet=QUIET,
    ),
    Panel(
        "Tries for a request",
        [(ratio("enginehouse_attempts_total", "enginehouse_requests_total", ""), "tries")],
        about="1: every request was served by the first endpoint it was sent to.",
        quiet=QUIET,
    ),
    Panel(
        "Clients that left",
        [(some("enginehouse_cancellations_total", "phase"), "{{phase}}")],
        "reqps",
        "By how far their request had come.",
        "no client has left early",
        stacked=True,
    ),
]
