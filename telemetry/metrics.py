"""Metrics: what this gateway counts, for Prometheus (docs/metrics.md lists every one).

Call the methods on the event loop; they touch plain numbers. `flush` writes them to prometheus_client, in
whose multi-process mode (`PROMETHEUS_MULTIPROC_DIR` set before Python starts) all workers share one page.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, TypeVar, get_args

from prometheus_client import CollectorRegistry, Counter, disable_created_metrics, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from telemetry.instruments import Instruments
from telemetry.metric_labels import (
    ATTEMPT_OUTCOMES,
    BREAKER_STATES,
    CANCEL_PHASES,
    OTHER,
    OUTCOMES,
    AttemptOutcome,
    BatchRowOutcome,
    BreakerState,
    CancelPhase,
    CopyOutcome,
    KnownValues,
    Outcome,
    RefusalReason,
    RolloutSide,
)
from telemetry.metric_series import CounterSeries, Flushable, HistogramSeries
from telemetry.queue_series import QueueSeries
from telemetry.slice_series import SliceSeries, Units

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_MAX_MODELS: Final = 256
_MAX_ADAPTERS: Final = 256
_MAX_PROFILES: Final = 16
_MAX_ENDPOINTS: Final = 512
_MAX_TENANTS: Final = 256

S = TypeVar("S", bound=Flushable)


class Metrics:
    """Every metric of a gateway process. One per process.

    Series of a model or an endpoint come with all values of their other label, at 0: a counter that begins
    with 1 shows Prometheus no increase.

    `multiprocess_dir` is the folder that `PROMETHEUS_MULTIPROC_DIR` names, None for a single worker.
    """

    def __init__(self, multiprocess_dir: Path | None = None) -> None:
        # Else the page of a single worker has a series of times beside each counter.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._dir = multiprocess_dir
        self._instruments = Instruments()
        self._kept: list[Flushable] = []
        self._by_model: dict[tuple[str | None, str | None], _ModelSeries] = {}
        self._queues: dict[tuple[str | None, str | None], QueueSeries] = {}
        self._attempts: dict[tuple[str, str], CounterSeries] = {}
        self._cancellations = {
            phase: self._keep(CounterSeries(self._instruments.cancellations.labels(phase)))
            for phase in (*sorted(CANCEL_PHASES), OTHER)
        }
        self._batch_rows = {
            outcome: self._keep(CounterSeries(self._instruments.batch_rows.labels(outcome)))
            for outcome in get_args(BatchRowOutcome)
        }
        self._copies: dict[tuple[str, str, str], CounterSeries] = {}
        self._rolling: set[str] = set()
        self._held: set[str] = set()
        self._loop_lag = self._keep(HistogramSeries(self._instruments.loop_lag))
        self._models = KnownValues(_MAX_MODELS)
        self._adapters = KnownValues(_MAX_ADAPTERS)
        self._profiles = KnownValues(_MAX_PROFILES)
        self._endpoints = KnownValues(_MAX_ENDPOINTS)
        self._tenants = KnownValues(_MAX_TENANTS)
        self._slices = SliceSeries(self._instruments)
        self._snapshot_confirmed_at_s: float | None = None
        self.in_flight = 0
        """Requests begun and not finished in this process."""
        self.open_streams = 0
        """Answers being streamed by this process; the gateway adds and subtracts."""

    def learn(
        self,
        models: Iterable[str] = (),
        profiles: Iterable[str] = (),
        endpoints: Iterable[str] = (),
        adapters: Iterable[str] = (),
        tenants: Iterable[str] = (),
    ) -> None:
        """Values that may become labels from now on; all others are counted as `other`.

        `adapters`, as `model+adapter`, are models to whoever counts, and take no model's place.
        """
        self._models.learn(models)
        self._adapters.learn(adapters)
        self._profiles.learn(profiles)
        self._endpoints.learn(endpoints)
        self._tenants.learn(tenants)

    def started(self) -> None:
        """A request begins; `finish` follows exactly once."""
        self.in_flight += 1

    def finish(
        self,
        model: str | None,
        profile: str | None,
        outcome: Outcome,
        *,
        duration_s: float,
        ttft_s: float | None = None,
        itl_s: float | None = None,
        prompt_tokens: int = 0,
        completion_tokens: int = 0,
        cold: bool = False,
    ) -> None:
        """A request is over. `itl_s` is its mean time between tokens; None: it had no such time.

        `cold`: it was held until its model was up.
        """
        self.in_flight -= 1
        series = self._by_model.get((model, profile)) or self._model_series(model, profile)
        series.requests(outcome).value += 1
        series.duration.observe(duration_s)
        if ttft_s is not None:
            series.ttft.observe(ttft_s)
        if itl_s is not None:
            series.itl.observe(itl_s)
        series.prompt_tokens.value += prompt_tokens
        series.completion_tokens.value += completion_tokens
        if outcome != "ok":
            series.wasted_tokens.value += completion_tokens
        if cold:
            series.cold.value += 1

    def engine(self, model: str | None, profile: str | None, queue_s: float, prefill_s: float) -> None:
        """What an engine told of an answer."""
        series = self._by_model.get((model, profile)) or self._model_series(model, profile)
        series.engine_queue.observe(queue_s)
        series.engine_prefill.observe(prefill_s)

    def queued(self, model: str | None, profile: str | None, tokens: int) -> None:
        """A request waits for room; `unqueued` follows exactly once, with the same values."""
        self._queue_series(model, profile).entered(tokens)

    def unqueued(self, model: str | None, profile: str | None, tokens: int, waited_s: float) -> None:
        """It does not wait any more, however that ended."""
        self._queue_series(model, profile).left(tokens, waited_s)

    def first_token(self, model: str | None, profile: str | None, *, late: bool) -> None:
        """A first token came; `late`: later than it should have."""
        series = self._by_model.get((model, profile)) or self._model_series(model, profile)
        (series.late if late else series.in_time).value += 1

    def refused(self, model: str | None, profile: str | None, reason: RefusalReason) -> None:
        """A request was refused because the capacity is taken."""
        self._queue_series(model, profile).refused(reason)

    def attempt(self, endpoint: str, outcome: AttemptOutcome) -> None:
        """A try on `endpoint` is over."""
        series = self._attempts.get((endpoint, outcome)) or self._attempt_series(endpoint, outcome)
        series.value += 1

    def retried(self, model: str | None, profile: str | None) -> None:
        """A request moves to another try before its first token."""
        (self._by_model.get((model, profile)) or self._model_series(model, profile)).retries.value += 1

    def migrated(self, model: str | None, profile: str | None) -> None:
        """A stream continues on another endpoint after its first token."""
        (self._by_model.get((model, profile)) or self._model_series(model, profile)).migrations.value += 1

    def cancelled(self, phase: CancelPhase) -> None:
        """A client left."""
        (self._cancellations.get(phase) or self._cancellations[OTHER]).value += 1

    def breaker(self, endpoint: str, state: BreakerState) -> None:
        """The breaker of `endpoint` is now in `state`; only endpoints that were learned are shown."""
        if (label := self._endpoints.label(endpoint)) != OTHER:
            self._instruments.breaker_state.labels(label).set(BREAKER_STATES[state])

    def slices(
        self, worker: int, slots: Mapping[str, Units], limits: Mapping[tuple[str, str], Units]
    ) -> None:
        """What this worker has of endpoints' slots, and of tenants' limits by tenant and limit."""
        tenant = self._tenants.label
        self._slices.set(
            (((self._endpoints.label(name), str(worker)), units) for name, units in slots.items()),
            (((tenant(name), limit), units) for (name, limit), units in limits.items()),
        )

    def renewals(self, lost: int, confirmed: bool) -> None:
        """How many reports on slices were lost since the start; whether what is held is confirmed."""
        self._slices.renewals(lost, confirmed)

    def kv_events(self, endpoint: str, events: int) -> None:
        """So many KV events of an endpoint's server were read."""
        self._instruments.kv_events.labels(self._endpoints.label(endpoint)).inc(events)

    def kv_gaps(self, endpoint: str, gaps: int) -> None:
        """KV events of an endpoint's server were missed."""
        self._instruments.kv_event_gaps.labels(self._endpoints.label(endpoint)).inc(gaps)

    def kv_age(self, endpoint: str, age_s: float) -> None:
        """The KV events of an endpoint's server were last read so long ago."""
        self._instruments.kv_event_age.labels(self._endpoints.label(endpoint)).set(age_s)

    def snapshot(self, version: int, confirmed_at_s: float) -> None:
        """The registry view in use; the registry last agreed with it at `confirmed_at_s` (Unix seconds)."""
        self._instruments.snapshot_version.set(version)
        self._snapshot_confirmed_at_s = confirmed_at_s

    def registry(self, connected: bool) -> None:
        """Whether the registry is reached."""
        self._instruments.registry_connected.set(connected)

    def batch_row(self, outcome: BatchRowOutcome, rows: int = 1) -> None:
        """Rows of a batch job were run."""
        self._batch_rows[outcome].value += rows

    def batch_jobs(self, by_status: Mapping[str, int], rows_waiting: int) -> None:
        """Batch jobs that have not ended, of all statuses that those may have, and their rows left."""
        for status, jobs in by_status.items():
            self._instruments.batch_jobs.labels(status).set(jobs)
        self._instruments.batch_rows_waiting.set(rows_waiting)

    def rollout_copy(self, model: str, side: RolloutSide, outcome: CopyOutcome) -> None:
        """A copy of a request was answered, or failed."""
        labels = self._models.label(model), side, outcome
        series = self._copies.get(labels)
        if series is None:
            series = self._copies[labels] = self._keep(
                CounterSeries(self._instruments.rollout_copies.labels(*labels))
            )
        series.value += 1

    def rollouts(self, shares: Mapping[str, float]) -> None:
        """Shares of the candidates of all rollouts under way, by model."""
        for model in self._rolling - shares.keys():
            self._instruments.rollout_share.labels(self._models.label(model)).set(0.0)
        for model, share in shares.items():
            self._instruments.rollout_share.labels(self._models.label(model)).set(share)
        self._rolling = set(shares)

    def held(self, requests: Mapping[str, int]) -> None:
        """Requests that are held, by model."""
        for model in self._held - requests.keys():
            self._instruments.held_requests.labels(self._models.label(model)).set(0)
        for model, number in requests.items():
            self._instruments.held_requests.labels(self._models.label(model)).set(number)
        self._held = set(requests)

    def loop_lag(self, lag_s: float) -> None:
        """The event loop woke up so much too late."""
        self._loop_lag.observe(lag_s)

    def flush(self) -> None:
        """Write everything counted since the last time; call it once a second and before `render`."""
        for series in self._kept:
            series.flush()
        self._instruments.requests_in_flight.set(self.in_flight)
        self._instruments.streams_open.set(self.open_streams)
        if self._snapshot_confirmed_at_s is not None:
            self._instruments.snapshot_age.set(max(0.0, time.time() - self._snapshot_confirmed_at_s))

    def render(self) -> bytes:
        """The page for Prometheus, of all workers; reads files, so call it off the event loop."""
        if self._dir is None:
            return generate_latest(self._instruments.registry)
        merged = CollectorRegistry()
        MultiProcessCollector(merged, path=str(self._dir))  # type: ignore[no-untyped-call]
        return generate_latest(merged)

    def _keep(self, series: S) -> S:
        self._kept.append(series)
        return series

    def _model_series(self, model: str | None, profile: str | None) -> _ModelSeries:
        label = self._models.label(model)
        labels = self._adapters.label(model) if label == OTHER else label, self._profiles.label(profile)
        series = self._by_model.get(labels)
        if series is None:
            series = self._by_model[labels] = self._keep(_ModelSeries(self._instruments, *labels))
        return series

    def _queue_series(self, model: str | None, profile: str | None) -> QueueSeries:
        label = self._models.label(model)
        labels = self._adapters.label(model) if label == OTHER else label, self._profiles.label(profile)
        series = self._queues.get(labels)
        if series is None:
            series = self._queues[labels] = self._keep(QueueSeries(self._instruments, *labels))
            self._model_series(model, profile)  # at 0 for as long as its first request waits
        return series

    def _attempt_series(self, endpoint: str, outcome: str) -> CounterSeries:
        label = self._endpoints.label(endpoint)
        if (label, OTHER) not in self._attempts:
            for each in (*sorted(ATTEMPT_OUTCOMES), OTHER):
                series = self._keep(CounterSeries(self._instruments.attempts.labels(label, each)))
                self._attempts[label, each] = series
        return self._attempts.get((label, outcome)) or self._attempts[label, OTHER]


class _ModelSeries:
    """What the requests of one model under one profile add to."""

    def __init__(self, instruments: Instruments, model: str, profile: str) -> None:
        def counter(of: Counter) -> CounterSeries:
            return CounterSeries(of.labels(model, profile))

        self.duration = HistogramSeries(instruments.request_duration.labels(model, profile))
        self.ttft = HistogramSeries(instruments.time_to_first_token.labels(model, profile))
        self.itl = HistogramSeries(instruments.inter_token_latency.labels(model, profile))
        self.engine_queue = HistogramSeries(instruments.engine_queue.labels(model, profile))
        self.engine_prefill = HistogramSeries(instruments.engine_prefill.labels(model, profile))
        self.prompt_tokens = counter(instruments.prompt_tokens)
        self.completion_tokens = counter(instruments.completion_tokens)
        self.wasted_tokens = counter(instruments.wasted_tokens)
        self.in_time = CounterSeries(instruments.first_tokens.labels(model, profile, "met"))
        self.late = CounterSeries(instruments.first_tokens.labels(model, profile, "missed"))
        self.cold = counter(instruments.cold_requests)
        self.retries = counter(instruments.retries)
        self.migrations = counter(instruments.migrations)
        self._requests = {
            outcome: CounterSeries(instruments.requests.labels(model, profile, outcome))
            for outcome in (*sorted(OUTCOMES), OTHER)
        }

    def requests(self, outcome: str) -> CounterSeries:
        """The counter of requests that ended with `outcome`."""
        return self._requests.get(outcome) or self._requests[OTHER]

    def flush(self) -> None:
        """Write all of them."""
        for histogram in (self.duration, self.ttft, self.itl, self.engine_queue, self.engine_prefill):
            histogram.flush()
        tokens = self.prompt_tokens, self.completion_tokens, self.wasted_tokens
        first = self.in_time, self.late
        moved = self.cold, self.retries, self.migrations
        for counter in (*tokens, *first, *moved, *self._requests.values()):
            counter.flush()
