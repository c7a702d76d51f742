"""The controller moves rollouts in a real registry, by evidence that gateways have told."""

from __future__ import annotations

import datetime

import pytest
from redis.asyncio import Redis

from controller.rollouts.run import Rollouts
from model_registry.config import RegistryConfig
from model_registry.engines import Engine, PreflightRecord
from model_registry.entities import Deployment, Endpoint, Model, ServerRef
from model_registry.errors import LeadershipLostError
from model_registry.rollout_evidence.evidence import Evidence
from model_registry.rollout_evidence.store import EvidenceStore
from model_registry.rollouts import CanaryStep, Rollout, RolloutStatus, ShadowPlan
from model_registry.store import RegistryStore

AT = datetime.datetime(2026, 11, 29, tzinfo=datetime.UTC)


def engine(name: str, *, passed: bool | None = True, emulated: bool = False) -> Engine:
    preflight = None if passed is None else PreflightRecord(passed=passed, at=AT)
    return Engine(
        name=name, spec="s", digest="0" * 64, lane="trt-engine",
        runtime="emulated" if emulated else "tensorrt-llm", version="1.2.1", gpu_class="h100-sxm",
        precision="fp8", url="/e", manifest_sha256="0" * 64, built_at=AT, preflight=preflight,
    )  # fmt: skip


def deployment(name: str, **more: object) -> Deployment:
    servers = (ServerRef(http=f"http://{name}:1"),)
    return Deployment.model_validate({"name": name, "model": "m", "servers": servers, **more})


@pytest.fixture
def evidence(redis_client: Redis, config: RegistryConfig) -> EvidenceStore:
    return EvidenceStore.of(redis_client, config)


@pytest.fixture
def rollouts(store: RegistryStore, evidence: EvidenceStore) -> Rollouts:
    return Rollouts(store, evidence)


async def begin(store: RegistryStore, *, shadow: ShadowPlan | None = None) -> None:
    """Two ready deployments and a rollout from one to the other."""
    steps = (CanaryStep(share=0.5, min_samples=1, min_s=0),)
    rollout = Rollout(name="r", model="m", stable="a", candidate="b", shadow=shadow, steps=steps)
    await store.apply(
        [Model(name="m", context_length=10, tokenizer="t"), deployment("a", weight=2), deployment("b")]
    )
    for name in "ab":
        endpoint = Endpoint(
            name=f"{name}@{name}:1", deployment=name, model="m", profile="balanced", lane="tensorrt_llm",
            target="m", http=f"http://{name}:1", state="ready", weight=2.0 if name == "a" else 1.0,
        )  # fmt: skip
        await store.register_endpoint(endpoint, ttl_s=60)
    await store.apply([rollout])


async def look(store: RegistryStore, rollouts: Rollouts) -> RolloutStatus:
    await rollouts.act(await store.load(), await store.claim_leadership("c", 60))
    return (await store.load()).rollout_statuses["r"]


async def weights(store: RegistryStore) -> list[tuple[str, float, float]]:
    snapshot = await store.load()
    endpoints = {one.deployment: one.weight for one in snapshot.endpoints["m"]}
    return [(one.name, one.weight, endpoints[one.name]) for one in snapshot.deployments["m"]]


def served(epoch: int, *, failed: bool) -> Evidence:
    told = Evidence(epoch)
    for _ in range(300):
        told.step(0).candidate.add(failed)
        told.step(0).stable.add(False)
        told.step(0).pace.add(1.0)
        told.step(0).ttft.add(1.0)
    return told


@pytest.mark.parametrize(
    ("failed", "phase", "after"),
    [
        (False, "promoted", [("a", 0.0, 0.0), ("b", 2.0, 2.0)]),
        (True, "rolled_back", [("a", 2.0, 2.0), ("b", 0.0, 0.0)]),
    ],
)
async def test_a_rollout_takes_the_weights_with_it_at_once(
    store: RegistryStore, rollouts: Rollouts, evidence: EvidenceStore, failed: bool, phase: str,
    after: list[tuple[str, float, float]],
) -> None:  # fmt: skip
    """Of deployments and of their endpoints, in one version of the registry."""
    await begin(store)
    status = await look(store, rollouts)
    assert (status.phase, status.share) == ("canary", 0.5)
    assert await weights(store) == [("a", 2.0, 2.0), ("b", 0.0, 0.0)]
    rolling = (await store.load()).rolling["m"]
    assert [one.weight for one in rolling.candidate] == [1.0]
    await evidence.report("r", "w", served(status.epoch, failed=failed))
    status = await look(store, rollouts)
    assert status.phase == phase, status.reason
    assert await weights(store) == after
    assert (await store.load()).rolling == {}


async def test_one_that_takes_over_goes_on_and_the_last_leader_is_refused(
    store: RegistryStore, rollouts: Rollouts, evidence: EvidenceStore
) -> None:
    await begin(store)
    before = await store.load()
    old = await store.claim_leadership("old", 60)
    await rollouts.act(before, old)
    begun = (await store.load()).rollout_statuses["r"]
    assert old is not None
    await store.resign_leadership(old)
    new = await store.claim_leadership("new", 60)
    await evidence.report("r", "w", served(begun.epoch, failed=False))
    with pytest.raises(LeadershipLostError):
        await rollouts.act(await store.load(), old)
    assert (await store.load()).rollout_statuses["r"] == begun
    await Rollouts(store, evidence).act(await store.load(), new)
    status = (await store.load()).rollout_statuses["r"]
    assert (status.phase, status.epoch, status.started_at) == ("promoted", begun.epoch, begun.started_at)


async def test_what_was_counted_in_an_earlier_run_does_not_count(
    store: RegistryStore, rollouts: Rollouts, evidence: EvidenceStore
) -> None:
    await begin(store)
    status = await look(store, rollouts)
    await evidence.report("r", "w", served(status.epoch - 1, failed=True))
    status = await look(store, rollouts)
    assert (status.phase, status.samples) == ("canary", 0)


async def test_a_status_whose_rollout_is_gone_goes_too(store: RegistryStore, rollouts: Rollouts) -> None:
    await begin(store)
    await look(store, rollouts)
    await store.delete("Rollout", "r")
    await rollouts.act(await store.load(), await store.claim_leadership("c", 60))
    assert (await store.load()).rollout_statuses == {}


@pytest.mark.parametrize(
    ("stable", "candidate", "reason"),
    [
        (None, engine("new", emulated=True), "refused: the engine 'new' is emulated"),
        (engine("old"), engine("new", emulated=True), "refused: the engine 'new' is emulated"),
        (engine("old", emulated=True), engine("new", emulated=True), None),
        (engine("old"), engine("new", passed=None), "has not passed preflight"),
        (engine("old"), engine("new", passed=False), "has not passed preflight"),
        (engine("old"), engine("new"), None),
    ],
)
async def test_an_engine_must_be_fit_to_be_tried(
    store: RegistryStore, rollouts: Rollouts, stable: Engine | None, candidate: Engine, reason: str | None
) -> None:
    """Preflight passed, and never an emulated one in place of what is not known to be."""
    await begin(store)
    engines = [candidate] if stable is None else [stable, candidate]
    built = [
        deployment("b", engine="new"),
        deployment("a", engine=None if stable is None else "old", weight=2),
    ]
    await store.apply([*engines, *built])
    status = await look(store, rollouts)
    if reason is None:
        assert status.phase == "canary"
    else:
        assert status.phase == "pending"
        assert reason in status.reason
        assert await weights(store) == [("a", 2.0, 2.0), ("b", 1.0, 1.0)]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"profile": "latency"}, "a rollout stays within one"),
        ({"model": "other"}, "serves 'other', not 'm'"),
    ],
)
async def test_deployments_must_go_together(
    store: RegistryStore, rollouts: Rollouts, changed: dict[str, str], reason: str
) -> None:
    await begin(store)
    await store.apply([Model(name="other", context_length=10), deployment("b", **changed)])
    assert reason in (await look(store, rollouts)).reason


async def test_a_stable_deployment_that_serves_nothing_is_not_taken_over_from(
    store: RegistryStore, rollouts: Rollouts
) -> None:
    """As after a registry came back without statuses: what was promoted goes on serving."""
    await begin(store)
    await store.apply([deployment("a", weight=0)])
    assert "has weight 0" in (await look(store, rollouts)).reason


async def test_aborting_what_never_began_moves_no_weights(store: RegistryStore, rollouts: Rollouts) -> None:
    """As after a promotion: the old deployment has weight 0, the new one serves, and `run` was raised."""
    await begin(store)
    await store.apply([deployment("a", weight=0), deployment("b", weight=2)])
    assert (await look(store, rollouts)).phase == "pending"
    before = await weights(store)
    rollout = (await store.load()).rollouts["r"]
    await store.apply([rollout.model_copy(update={"wanted": "abort"})])
    assert (await look(store, rollouts)).phase == "aborted"
    assert await weights(store) == before


async def test_of_two_rollouts_of_one_model_only_one_begins(store: RegistryStore, rollouts: Rollouts) -> None:
    """Also where both are seen for the first time at once."""
    await begin(store)
    rollout = (await store.load()).rollouts["r"]
    await store.apply([rollout.model_copy(update={"name": "s"})])
    await look(store, rollouts)
    statuses = (await store.load()).rollout_statuses
    assert {name: status.phase for name, status in statuses.items()} == {"r": "canary", "s": "pending"}
    assert "waits for the rollout 'r'" in statuses["s"].reason
