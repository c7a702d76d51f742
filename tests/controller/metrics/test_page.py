"""The controller's metrics, read as Prometheus reads them."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import Mapping
from typing import Any, get_args

import pytest
from prometheus_client.parser import text_string_to_metric_families

from controller.metrics.builds import BuildCounts
from controller.metrics.collector import FleetCollector, Sources
from controller.metrics.families import MIB
from controller.metrics.page import MetricsPage
from controller.replicas.changes import Change, ChangeCounts
from controller.residency.pool import Memory
from model_registry.entities import Deployment, Scaling
from model_registry.pools import Pool, PoolServer, TritonActuator
from model_registry.replicas import Replica, ReplicaState, ScalingStatus, Signal
from model_registry.rollouts import Rollout, RolloutStatus
from model_registry.snapshot import Snapshot

NOTHING = Sources(lambda: Snapshot.of(0, (), stale=True), lambda: False, dict, dict, lambda: None)
CHAT = ScalingStatus(
    name="chat", model="m", pool="k8s", wanted=4, ready=2, starting=1, draining=1, cold_start_s=31.5
)
OF_CHAT = {"deployment": "chat", "model": "m", "pool": "k8s"}

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def scraped(sources: Sources) -> Samples:
    """Every sample of the page, by its name and labels."""
    page = MetricsPage(FleetCollector(sources), "127.0.0.1", 0)

    def read() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{page.port}/metrics", timeout=10) as answer:
            text: str = answer.read().decode()
            return text

    try:
        families = text_string_to_metric_families(await asyncio.to_thread(read))
    finally:
        page.close()
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def key(name: str, labels: Mapping[str, str]) -> tuple[str, frozenset[tuple[str, str]]]:
    return f"enginehouse_{name}", frozenset(labels.items())


def holding(*objects: Any, **more: Any) -> Sources:
    """Sources that know these objects, and `more`."""
    return NOTHING._replace(snapshot=lambda: Snapshot.of(7, objects), **more)


async def test_what_is_wanted_and_what_there_is() -> None:
    assert await scraped(holding(CHAT, leads=lambda: True)) == {
        key("controller_leading", {}): 1,
        key("snapshot_version", {}): 7,
        key("wanted_replicas", OF_CHAT): 4,
        key("replicas", {**OF_CHAT, "state": "ready"}): 2,
        key("replicas", {**OF_CHAT, "state": "starting"}): 1,
        key("replicas", {**OF_CHAT, "state": "draining"}): 1,
        key("cold_start_seconds", OF_CHAT): 31.5,
        key("failed_starts", OF_CHAT): 0,
        **{key("replica_changes_total", {**OF_CHAT, "state": state}): 0 for state in get_args(ReplicaState)},
    }


async def test_what_is_not_known_is_absent_and_not_zero() -> None:
    assert {name for name, _ in await scraped(NOTHING)} == {
        "enginehouse_controller_leading",
        "enginehouse_snapshot_version",
    }


async def test_what_a_decision_went_by() -> None:
    """Each figure with the age of what the gateways had told; those that nobody charts are left out."""
    signals = [
        Signal(name="load", value=1.7, unit="replicas", source="gateways", age_s=0.4),
        Signal(name="expected_load", value=2.4, unit="replicas", source="gateways", age_s=0.4),
        Signal(name="waiting", value=3.0, unit="replica-seconds", source="gateways", age_s=0.4),
        Signal(name="fill", value=0.9, unit="of the card's capacity", source="controller"),
        Signal(name="capacity", value=11.0, unit="requests/s", source="card"),
    ]
    found = await scraped(holding(CHAT.model_copy(update={"signals": tuple(signals), "memory_mib": 12})))
    names = "load_replicas", "expected_load_replicas", "waiting_replica_seconds", "card_fill_ratio"
    assert [found[key(name, OF_CHAT)] for name in names] == [1.7, 2.4, 3.0, 0.9]
    assert found[key("signal_age_seconds", OF_CHAT)] == 0.4
    assert found[key("replica_memory_bytes", OF_CHAT)] == 12 * MIB
    assert not any("capacity" in name for name, _ in found)


async def test_what_replicas_came_to_is_counted_while_their_deployment_is_there() -> None:
    counts = ChangeCounts()
    states: tuple[ReplicaState, ...] = ("starting", "ready", "starting")
    for state in states:
        counts.count(Replica(name="chat.1", deployment="chat", model="m", pool="k8s"), state)
    counts.count(Replica(name="old.1", deployment="old", model="m", pool="k8s"), "gone")
    found = await scraped(holding(CHAT, changes=counts.read))
    assert {name: value for name, value in found.items() if name[0].endswith("changes_total") and value} == {
        key("replica_changes_total", {**OF_CHAT, "state": "starting"}): 2,
        key("replica_changes_total", {**OF_CHAT, "state": "ready"}): 1,
    }
    assert counts.read()[Change("old", "m", "k8s", "gone")] == 1


A, B = "http://a:8000", "http://b:8000"
SHARED = Pool(
    name="shared",
    actuator=TritonActuator(
        type="triton", servers=(PoolServer(http=A, memory_mib=100), PoolServer(http=B, memory_mib=200))
    ),
)


def replica(number: int, place: str, state: ReplicaState = "ready", memory_mib: int | None = None) -> Replica:
    return Replica(
        name=f"chat.{number}",
        deployment="chat",
        model="m",
        pool="shared",
        place=place,
        state=state,
        memory_mib=memory_mib,
    )


@pytest.mark.parametrize(("declared_mib", "taken_mib"), [(30, 70.0), (None, None)])
async def test_servers_hold_replicas_within_a_budget(
    declared_mib: int | None, taken_mib: float | None
) -> None:
    """Sizes are measured, else declared; with one that is neither no sum is told."""
    deployment = Deployment(
        name="chat", model="m", scaling=Scaling(pool="shared", memory_mib=declared_mib, max_replicas=2)
    )
    there = [replica(1, A, memory_mib=40), replica(2, A, "starting")]
    memories = {A: Memory(85.0, 6.0), B: Memory(None, 0.0)}
    found = await scraped(holding(SHARED, deployment, *there, memories=lambda: memories))
    on = {"pool": "shared", "server": A}
    held = {(s, state): found[key("server_replicas", {"pool": "shared", "server": s, "state": state})]
            for s in (A, B) for state in ("ready", "starting", "draining")}  # fmt: skip
    assert {where for where, number in held.items() if number} == {(A, "ready"), (A, "starting")}
    assert found[key("server_memory_budget_bytes", on)] == 100 * MIB
    assert found[key("server_memory_used_bytes", on)] == 85 * MIB
    assert found[key("server_memory_kept_bytes", on)] == 6 * MIB
    taken = found.get(key("server_memory_taken_bytes", on))
    assert taken == (None if taken_mib is None else taken_mib * MIB)
    empty = {"pool": "shared", "server": B}
    assert found[key("server_memory_taken_bytes", empty)] == 0
    assert key("server_memory_used_bytes", empty) not in found
    assert key("server_memory_kept_bytes", empty) not in found


@pytest.mark.parametrize(("run", "phase"), [(2, "canary"), (3, "pending")])
async def test_a_rollout_is_in_one_phase_of_its_present_run(run: int, phase: str) -> None:
    sides = {"name": "r", "model": "m", "stable": "old", "candidate": "new"}
    rollout = Rollout.model_validate({**sides, "run": run})
    status = RolloutStatus.model_validate({**sides, "run": 2, "phase": "canary"})
    found = await scraped(holding(rollout, status))
    phases = {labels: value for (name, labels), value in found.items() if name.endswith("rollout_phase")}
    assert phases == {frozenset({"rollout": "r", "model": "m", "phase": phase}.items()): 1}


async def test_builds_of_the_fleet() -> None:
    found = await scraped(holding(builds=lambda: BuildCounts(queued=2, running=1, builders=0)))
    assert found[key("builds", {"state": "queued"})] == 2
    assert found[key("builds", {"state": "running"})] == 1
    assert found[key("builders", {})] == 0


async def test_a_port_that_is_taken_is_told() -> None:
    collector = FleetCollector(NOTHING)
    page = MetricsPage(collector, "127.0.0.1", 0)
    try:
        with pytest.raises(OSError, match="in use"):
            MetricsPage(collector, "127.0.0.1", page.port)
    finally:
        page.close()
