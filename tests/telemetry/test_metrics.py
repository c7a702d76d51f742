"""What the metrics page says, for one worker and for several."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from prometheus_client.parser import text_string_to_metric_families

from model_registry.build_jobs.entities import BUILD_STATES, ENDED
from model_registry.replicas import ReplicaState
from model_registry.rollouts import Phase
from telemetry.instruments import Instruments
from telemetry.metric_labels import (
    ATTEMPT_OUTCOMES,
    BATCH_JOB_STATUSES,
    BATCH_ROW_OUTCOMES,
    CANCEL_PHASES,
    COPY_OUTCOMES,
    OUTCOMES,
    REFUSAL_REASONS,
    ROLLOUT_SIDES,
    FirstTokenTarget,
    outcome_of,
)
from telemetry.metrics import Metrics
from telemetry.slice_series import Units
from tenancy.limits import Kind

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"


def page(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample by its name and sorted labels."""
    metrics.flush()
    return samples(metrics.render().decode())


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return page(metrics).get((f"enginehouse_{name}", tuple(sorted(labels.items()))))


@pytest.fixture
def metrics() -> Metrics:
    made = Metrics()
    made.learn(models=["m"], profiles=["latency"], endpoints=["d@h:1"])
    return made


def test_a_finished_request_is_counted_everywhere_once(metrics: Metrics) -> None:
    metrics.started()
    metrics.finish(
        "m",
        "latency",
        "ok",
        duration_s=0.5,
        ttft_s=0.03,
        itl_s=0.004,
        prompt_tokens=7,
        completion_tokens=5,
        cold=True,
    )
    metrics.engine("m", "latency", 0.25, 0.5)
    by_model = {"model": "m", "profile": "latency"}
    found = {
        name: value(metrics, name, **by_model)
        for name in (
            "request_duration_seconds_sum",
            "time_to_first_token_seconds_sum",
            "inter_token_latency_seconds_sum",
            "engine_queue_seconds_sum",
            "engine_prefill_seconds_sum",
            "prompt_tokens_total",
            "completion_tokens_total",
            "cold_requests_total",
        )
    }
    assert list(found.values()) == [0.5, 0.03, 0.004, 0.25, 0.5, 7, 5, 1]
    assert value(metrics, "requests_total", **by_model, outcome="ok") == 1
    assert value(metrics, "requests_in_flight") == 0


def test_observations_fall_into_the_buckets_that_prometheus_would_choose(metrics: Metrics) -> None:
    """A bound belongs to its bucket, and what is above all bounds is in +Inf only."""
    plain = Instruments().request_duration.labels("m", "latency")
    for seconds in (0.0, 0.01, 0.0100001, 5.12, 81.92, 100.0):
        metrics.started()
        metrics.finish("m", "latency", "ok", duration_s=seconds)
        plain.observe(seconds)
    expected = {
        s.labels["le"]: s.value for m in plain.collect() for s in m.samples if s.name.endswith("_bucket")
    }
    for bound, count in expected.items():
        found = value(metrics, "request_duration_seconds_bucket", model="m", profile="latency", le=bound)
        assert found == count


def test_first_tokens_are_counted_by_their_target(metrics: Metrics) -> None:
    """By model; a request that was not held is not a cold one."""
    for late in (True, False, True):
        metrics.first_token("m", "latency", late=late)
    metrics.first_token("made-up", "latency", late=True)
    metrics.started()
    metrics.finish("m", "latency", "ok", duration_s=0.5)
    by_model = {"model": "m", "profile": "latency"}
    assert value(metrics, "first_tokens_total", **by_model, target="missed") == 2
    assert value(metrics, "first_tokens_total", **by_model, target="met") == 1
    assert value(metrics, "first_tokens_total", model="other", profile="latency", target="missed") == 1
    assert value(metrics, "cold_requests_total", **by_model) == 0


def test_series_are_there_at_zero_before_they_count(metrics: Metrics) -> None:
    """Else Prometheus does not see what is counted first: a rate needs two values."""
    metrics.attempt("d@h:1", "ok")
    metrics.queued("m", "latency", 10)
    by_model = {"model": "m", "profile": "latency"}
    assert value(metrics, "attempts_total", endpoint="d@h:1", outcome="unreachable") == 0
    assert value(metrics, "refusals_total", **by_model, reason="queue_full") == 0
    assert value(metrics, "requests_total", **by_model, outcome="failed") == 0
    assert value(metrics, "cold_requests_total", **by_model) == 0
    assert value(metrics, "cancellations_total", phase="stream") == 0


def test_flushing_twice_counts_once(metrics: Metrics) -> None:
    metrics.attempt("d@h:1", "ok")
    metrics.flush()
    metrics.flush()
    assert value(metrics, "attempts_total", endpoint="d@h:1", outcome="ok") == 1


def test_names_from_clients_never_become_labels(metrics: Metrics) -> None:
    for number in range(50):
        metrics.started()
        metrics.finish(f"made-up-{number}", None, "invalid", duration_s=0.1)
        metrics.attempt(f"gone@h:{number}", "failed")
    assert value(metrics, "requests_total", model="other", profile="other", outcome="invalid") == 50
    assert value(metrics, "attempts_total", endpoint="other", outcome="failed") == 50
    assert not [key for key in page(metrics) if "made-up" in str(key) or "gone" in str(key)]


def test_a_fleet_that_changes_for_ever_stays_within_a_bound(metrics: Metrics) -> None:
    for number in range(2000):
        metrics.learn(endpoints=[f"d@10.0.0.{number}:8000"])
        metrics.attempt(f"d@10.0.0.{number}:8000", "ok")
    attempts = [dict(labels) for name, labels in page(metrics) if name == "enginehouse_attempts_total"]
    assert len({labels["endpoint"] for labels in attempts}) == 512
    assert value(metrics, "attempts_total", endpoint="other", outcome="ok") == 2000 - 511


def test_adapters_are_counted_by_name_within_a_bound_and_take_no_models_place(metrics: Metrics) -> None:
    metrics.learn(adapters=[f"m+a{number}" for number in range(400)])
    metrics.learn(models=["late"])
    for name in ("m", "late", *(f"m+a{number}" for number in range(400))):
        metrics.started()
        metrics.finish(name, "latency", "ok", duration_s=0.1)
    counted = page(metrics)  # once: with so many series it takes most of a second to make and to read
    for name, requests in (("m", 1), ("late", 1), ("m+a0", 1), ("m+a255", 1), ("other", 400 - 256)):
        labels = {"model": name, "outcome": "ok", "profile": "latency"}
        assert counted["enginehouse_requests_total", tuple(labels.items())] == requests


def test_an_outcome_outside_the_known_ones_is_other(metrics: Metrics) -> None:
    metrics.started()
    metrics.finish("m", "latency", "nonsense", duration_s=0.1)  # type: ignore[arg-type]
    metrics.attempt("d@h:1", "nonsense")  # type: ignore[arg-type]
    metrics.cancelled("nonsense")  # type: ignore[arg-type]
    text = " ".join(str(key) for key in page(metrics))
    assert "nonsense" not in text
    assert value(metrics, "cancellations_total", phase="other") == 1


def test_gauges_say_what_was_last_set(metrics: Metrics) -> None:
    metrics.started()
    metrics.open_streams += 2
    metrics.breaker("d@h:1", "open")
    metrics.breaker("unknown", "open")
    metrics.snapshot(12, confirmed_at_s=0.0)
    metrics.registry(connected=True)
    assert value(metrics, "requests_in_flight") == 1
    assert value(metrics, "streams_open") == 2
    assert value(metrics, "breaker_state", endpoint="d@h:1") == 2
    assert value(metrics, "breaker_state", endpoint="unknown") is None
    assert value(metrics, "snapshot_version") == 12
    assert (value(metrics, "snapshot_age_seconds") or 0) > 1e9
    assert value(metrics, "registry_connected") == 1


def test_tokens_of_requests_that_did_not_end_well_are_wasted(metrics: Metrics) -> None:
    metrics.learn(models=["m"], profiles=["latency"])
    for outcome, tokens in (("ok", 5), ("cancelled", 7), ("broken", 11)):
        metrics.started()
        metrics.finish("m", "latency", outcome, duration_s=0.1, completion_tokens=tokens)  # type: ignore[arg-type]
    assert value(metrics, "completion_tokens_total", model="m", profile="latency") == 23
    assert value(metrics, "wasted_tokens_total", model="m", profile="latency") == 18


def test_cancellations_and_moves_are_counted(metrics: Metrics) -> None:
    metrics.cancelled("stream")
    metrics.cancelled("queue")
    metrics.retried("m", "latency")
    metrics.migrated("m", "latency")
    metrics.loop_lag(0.002)
    assert value(metrics, "cancellations_total", phase="stream") == 1
    assert value(metrics, "retries_total", model="m", profile="latency") == 1
    assert value(metrics, "migrations_total", model="m", profile="latency") == 1
    assert value(metrics, "loop_lag_seconds_count") == 1


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, "ok"),
        (400, "invalid"),
        (401, "denied"),
        (404, "invalid"),
        (429, "limited"),
        (499, "cancelled"),
        (500, "failed"),
        (503, "unavailable"),
        (504, "timeout"),
    ],
)
def test_every_status_has_an_outcome(status: int, outcome: str) -> None:
    assert outcome_of(status) == outcome


WORKER = """
import sys
from pathlib import Path
from telemetry.metrics import Metrics

metrics = Metrics(Path(sys.argv[1]))
metrics.learn(models=["m"], profiles=["latency"])
for _ in range(int(sys.argv[2])):
    metrics.started()
    metrics.finish("m", "latency", "ok", duration_s=0.5, completion_tokens=3)
metrics.started()
metrics.snapshot(int(sys.argv[2]), 0.0)
metrics.flush()
print(metrics.render().decode() if len(sys.argv) > 3 else "", flush=True)
sys.stdin.read()
"""


def test_all_workers_share_one_page(tmp_path: Path) -> None:
    """Counters and histograms add up; gauges of living workers add up or show the worst."""
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", WORKER, str(tmp_path), *arguments]
        return subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    with start("10") as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "\n"
        with start("4", "show") as second:
            text, _ = second.communicate()
        first.communicate()
    found = samples(text)
    by_model = (("model", "m"), ("profile", "latency"))
    assert found["enginehouse_completion_tokens_total", by_model] == 42
    assert found["enginehouse_request_duration_seconds_count", by_model] == 14
    assert found["enginehouse_requests_in_flight", ()] == 2
    assert found["enginehouse_snapshot_version", ()] == 4


def test_slices_are_shown_by_worker_and_tenant_within_bounds(metrics: Metrics) -> None:
    """What is gone falls to nothing; what is not known adds up under one name; losses are counted once."""
    metrics.learn(tenants=["acme"])
    slots = {"d@h:1": Units(8, 5, 9), "x@h:1": Units(1, 1, 1), "y@h:1": Units(2, 0, 0)}
    limits = {("acme", "tokens"): Units(1000, 10, 20), ("who", "tokens"): Units(3, 2, 1)}
    metrics.slices(1, slots, limits)
    metrics.renewals(2, confirmed=True)
    metrics.renewals(5, confirmed=False)
    here = {"endpoint": "d@h:1", "worker": "1"}
    found = [value(metrics, f"slots_{name}", **here) for name in ("leased", "used", "wanted")]
    assert found == [8, 5, 9]
    assert value(metrics, "slots_leased", endpoint="other", worker="1") == 3
    assert value(metrics, "limit_leased", tenant="acme", limit="tokens") == 1000
    assert value(metrics, "limit_wanted", tenant="other", limit="tokens") == 1
    assert value(metrics, "slice_renewals_lost_total") == 5
    assert value(metrics, "slices_confirmed") == 0
    metrics.slices(1, {}, {})
    assert value(metrics, "slots_leased", **here) == 0
    assert value(metrics, "limit_used", tenant="acme", limit="tokens") == 0


def documented() -> dict[str, tuple[str, tuple[str, ...], str]]:
    """Name -> type, labels and meaning of a gateway's, as docs/metrics.md has them."""
    text = DOCUMENT.read_text().split("## Of a gateway")[1].split("## Of a controller")[0]
    rows = re.findall(r"^\| `(enginehouse_\w+)` \| (\w+) \| (.+?) \| (.+?) \|$", text, re.MULTILINE)
    return {name: (kind, tuple(re.findall(r"`(\w+)`", labels)), text) for name, kind, labels, text in rows}


def test_the_document_lists_every_metric_and_nothing_else() -> None:
    instruments = [each for each in vars(Instruments()).values() if hasattr(each, "describe")]
    described = {}
    for instrument in instruments:
        (family,) = instrument.describe()
        name = f"{family.name}_total" if family.type == "counter" else family.name
        described[name] = (family.type, tuple(instrument._labelnames), family.documentation)
    assert len(described) == 43
    assert documented() == described


def test_the_document_lists_every_label_value() -> None:
    text = DOCUMENT.read_text().split("## Label values")[1].split("## Questions")[0]
    documented_values = set(re.findall(r"`([a-z_]+)`", text)) - {"outcome", "phase", "status", "reason"}
    documented_values -= {"worker", "limit", "side", "target", "state"}
    assert documented_values == {
        *get_args(ReplicaState),
        *get_args(Phase),
        *({*BUILD_STATES} - ENDED),
        *get_args(Kind),
        *get_args(FirstTokenTarget),
        *OUTCOMES,
        *ATTEMPT_OUTCOMES,
        *CANCEL_PHASES,
        *BATCH_ROW_OUTCOMES,
        *BATCH_JOB_STATUSES,
        *REFUSAL_REASONS,
        *ROLLOUT_SIDES,
        *COPY_OUTCOMES,
    }


def test_models_that_nobody_is_held_for_any_more_are_shown_as_that() -> None:
    metrics = Metrics()
    metrics.learn(["a", "b"])
    metrics.held({"a": 3})
    metrics.held({"b": 1})
    page = metrics.render().decode()
    assert 'enginehouse_held_requests{model="a"} 0.0' in page
    assert 'enginehouse_held_requests{model="b"} 1.0' in page
