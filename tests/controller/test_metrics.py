"""The controller's metrics, read as Prometheus reads them."""

from __future__ import annotations

import asyncio
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from controller.metrics import MetricsPage, ScalingCollector
from model_registry.replicas import ScalingStatus
from model_registry.snapshot import Snapshot

CHAT = ScalingStatus(
    name="chat", model="m", pool="k8s", wanted=4, ready=2, starting=1, draining=1, cold_start_s=31.5
)


async def scraped(page: MetricsPage) -> dict[tuple[str, str], float]:
    def read() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{page.port}/metrics", timeout=10) as answer:
            text: str = answer.read().decode()
            return text

    samples = [s for f in text_string_to_metric_families(await asyncio.to_thread(read)) for s in f.samples]
    return {
        (
            s.name,
            s.labels.get("deployment", "") + s.labels.get("state", "") + s.labels.get("pool", ""),
        ): s.value
        for s in samples
    }


async def test_what_is_wanted_and_what_there_is() -> None:
    snapshots = [Snapshot.of(7, [CHAT])]
    page = MetricsPage(ScalingCollector(lambda: snapshots[-1], lambda: True), "127.0.0.1", 0)
    try:
        assert await scraped(page) == {
            ("enginehouse_controller_leading", ""): 1,
            ("enginehouse_snapshot_version", ""): 7,
            ("enginehouse_wanted_replicas", "chatk8s"): 4,
            ("enginehouse_replicas", "chatreadyk8s"): 2,
            ("enginehouse_replicas", "chatstartingk8s"): 1,
            ("enginehouse_replicas", "chatdrainingk8s"): 1,
            ("enginehouse_cold_start_seconds", "chatk8s"): 31.5,
        }
        snapshots.append(Snapshot.of(8, [CHAT.model_copy(update={"wanted": 0})]))
        assert (await scraped(page))["enginehouse_wanted_replicas", "chatk8s"] == 0
    finally:
        page.close()


async def test_what_is_not_known_is_absent_and_not_zero() -> None:
    nothing = Snapshot.of(0, (), stale=True)
    page = MetricsPage(ScalingCollector(lambda: nothing, lambda: False), "127.0.0.1", 0)
    try:
        assert {name for name, _ in await scraped(page)} == {
            "enginehouse_controller_leading",
            "enginehouse_snapshot_version",
        }
    finally:
        page.close()


async def test_a_port_that_is_taken_is_told() -> None:
    collector = ScalingCollector(lambda: Snapshot.of(0, ()), lambda: False)
    page = MetricsPage(collector, "127.0.0.1", 0)
    try:
        with pytest.raises(OSError, match="in use"):
            MetricsPage(collector, "127.0.0.1", page.port)
    finally:
        page.close()
