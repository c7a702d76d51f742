"""Instruments: every metric as Prometheus sees it; docs/metrics.md says how to read them."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge

from telemetry.metric_series import BulkHistogram

# The bucket bounds of the OpenTelemetry GenAI metrics, seconds.
_DURATION_S: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_TTFT_S: Final = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_ITL_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.5)
_LAG_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)


class Instruments:
    """The metrics of one process, in a registry of their own."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        by_model = ("model", "profile")
        self.requests = Counter(
            "enginehouse_requests_total",
            "Requests finished, by how they ended.",
            (*by_model, "outcome"),
            registry=registry,
        )
        self.request_duration = BulkHistogram(
            "enginehouse_request_duration_seconds",
            "From the request's first byte read to its answer's last byte written.",
            by_model,
            buckets=_DURATION_S,
            registry=registry,
        )
        self.time_to_first_token = BulkHistogram(
            "enginehouse_time_to_first_token_seconds",
            "From the request's first byte read to the first token.",
            by_model,
            buckets=_TTFT_S,
            registry=registry,
        )
        self.inter_token_latency = BulkHistogram(
            "enginehouse_inter_token_latency_seconds",
            "Mean time between two tokens of one request; one observation per request.",
            by_model,
            buckets=_ITL_S,
            registry=registry,
        )
        self.engine_queue = BulkHistogram(
            "enginehouse_engine_queue_seconds",
            "From an answer's arrival at its engine until the engine began with it, as the engine told.",
            by_model,
            buckets=_TTFT_S,
            registry=registry,
        )
        self.engine_prefill = BulkHistogram(
            "enginehouse_engine_prefill_seconds",
            "From when an engine began with an answer to its first token, as the engine told.",
            by_model,
            buckets=_TTFT_S,
            registry=registry,
        )
        self.first_tokens = Counter(
            "enginehouse_first_tokens_total",
            "First tokens that were seen or that engines told of, by whether they came within their target.",
            (*by_model, "target"),
            registry=registry,
        )
        self.prompt_tokens = Counter(
            "enginehouse_prompt_tokens_total",
            "Prompt tokens of finished requests.",
            by_model,
            registry=registry,
        )
        self.completion_tokens = Counter(
            "enginehouse_completion_tokens_total",
            "Tokens generated for finished requests, whatever their outcome.",
            by_model,
            registry=registry,
        )
        self.wasted_tokens = Counter(
            "enginehouse_wasted_tokens_total",
            "Of the generated tokens, those of requests that did not end well: the client left, or it broke.",
            by_model,
            registry=registry,
        )
        self.requests_in_flight = Gauge(
            "enginehouse_requests_in_flight",
            "Requests begun and not finished.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.streams_open = Gauge(
            "enginehouse_streams_open",
            "Answers being streamed to clients.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.queued_requests = Gauge(
            "enginehouse_queued_requests",
            "Requests that wait in the gateway for room at an endpoint.",
            by_model,
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.held_requests = Gauge(
            "enginehouse_held_requests",
            "Requests that wait for a model that is being brought up.",
            ("model",),
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.cold_requests = Counter(
            "enginehouse_cold_requests_total",
            "Of the requests finished, those that were held for a model being brought up.",
            by_model,
            registry=registry,
        )
        self.queued_tokens = Gauge(
            "enginehouse_queued_tokens",
            "Prompt tokens and expected output of the requests that wait.",
            by_model,
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.queue_wait = BulkHistogram(
            "enginehouse_queue_wait_seconds",
            "Time in the queue of those requests that had to wait, however it ended.",
            by_model,
            buckets=_DURATION_S,
            registry=registry,
        )
        self.refusals = Counter(
            "enginehouse_refusals_total",
            "Requests refused because capacity was taken (429) or not up in time (503), by reason.",
            (*by_model, "reason"),
            registry=registry,
        )
        self.attempts = Counter(
            "enginehouse_attempts_total",
            "Tries on an endpoint, by how they ended.",
            ("endpoint", "outcome"),
            registry=registry,
        )
        self.retries = Counter(
            "enginehouse_retries_total",
            "Requests moved to another try before their first token.",
            by_model,
            registry=registry,
        )
        self.migrations = Counter(
            "enginehouse_migrations_total",
            "Streams continued on another endpoint after their first token.",
            by_model,
            registry=registry,
        )
        self.cancellations = Counter(
            "enginehouse_cancellations_total",
            "Requests whose client left, by how far they had come.",
            ("phase",),
            registry=registry,
        )
        self.breaker_state = Gauge(
            "enginehouse_breaker_state",
            "Breaker of an endpoint: 0 closed, 1 half open, 2 open; the worst of all workers.",
            ("endpoint",),
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.slots_leased = Gauge(
            "enginehouse_slots_leased",
            "Slots of an endpoint that a worker may use now.",
            ("endpoint", "worker"),
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.slots_used = Gauge(
            "enginehouse_slots_used",
            "Slots of an endpoint that a worker has requests in.",
            ("endpoint", "worker"),
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.slots_wanted = Gauge(
            "enginehouse_slots_wanted",
            "Slots of an endpoint that a worker uses or has requests waiting for.",
            ("endpoint", "worker"),
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.limit_leased = Gauge(
            "enginehouse_limit_leased",
            "Units of a tenant's limit that the workers may use now.",
            ("tenant", "limit"),
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.limit_used = Gauge(
            "enginehouse_limit_used",
            "Units of a tenant's limit in use, by the workers' own count.",
            ("tenant", "limit"),
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.limit_wanted = Gauge(
            "enginehouse_limit_wanted",
            "Units of a tenant's limit in use or waited for.",
            ("tenant", "limit"),
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.renewals_lost = Counter(
            "enginehouse_slice_renewals_lost_total",
            "Reports of a worker on its slices that the registry did not answer in time.",
            registry=registry,
        )
        self.slices_confirmed = Gauge(
            "enginehouse_slices_confirmed",
            "1 while what every worker holds is confirmed; 0: one goes by its even part.",
            registry=registry,
            multiprocess_mode="livemin",
        )
        self.kv_events = Counter(
            "enginehouse_kv_events_total",
            "KV events read of an endpoint's server, by whichever worker reads it.",
            ("endpoint",),
            registry=registry,
        )
        self.kv_event_gaps = Counter(
            "enginehouse_kv_event_gaps_total",
            "Times that KV events of an endpoint's server were missed, so that its cache is learned anew.",
            ("endpoint",),
            registry=registry,
        )
        self.kv_event_age = Gauge(
            "enginehouse_kv_event_age_seconds",
            "Since the KV events of an endpoint's server were last read; the worst of all workers.",
            ("endpoint",),
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.snapshot_version = Gauge(
            "enginehouse_snapshot_version",
            "Registry version in use; the oldest of all workers.",
            registry=registry,
            multiprocess_mode="livemin",
        )
        self.snapshot_age = Gauge(
            "enginehouse_snapshot_age_seconds",
            "Since the registry last agreed with the snapshot in use; the oldest of all workers.",
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.registry_connected = Gauge(
            "enginehouse_registry_connected",
            "1 while every worker reaches the registry.",
            registry=registry,
            multiprocess_mode="livemin",
        )
        self.batch_rows = Counter(
            "enginehouse_batch_rows_total",
            "Rows of batch jobs that this worker ran, by what became of them.",
            ("outcome",),
            registry=registry,
        )
        self.batch_rows_waiting = Gauge(
            "enginehouse_batch_rows_waiting",
            "Rows of unfinished batch jobs without a result, in the whole fleet.",
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.batch_jobs = Gauge(
            "enginehouse_batch_jobs",
            "Batch jobs that have not ended, by status, in the whole fleet.",
            ("status",),
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.rollout_copies = Counter(
            "enginehouse_rollout_copies_total",
            "Copies of requests that a rollout's two sides were asked, by how their answers compared.",
            ("model", "side", "outcome"),
            registry=registry,
        )
        self.rollout_share = Gauge(
            "enginehouse_rollout_share",
            "Share of a model's requests that the candidate of its rollout is to serve; 0 while it is copied "
            "only, or none is under way.",
            ("model",),
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.loop_lag = BulkHistogram(
            "enginehouse_loop_lag_seconds",
            "How late the event loop woke up for a timer; sampled.",
            (),
            buckets=_LAG_S,
            registry=registry,
        )
