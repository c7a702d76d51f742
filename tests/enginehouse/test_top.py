"""`enginehouse top`: one screen of a fleet, by the admin API and a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from io import StringIO

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from redis.asyncio import Redis
from rich.console import Console

from enginehouse import watching
from enginehouse.connection import Connection
from enginehouse.errors import ApiError
from enginehouse.fleet_rows import DeploymentRow, GroupFigures, ServerRow, deployment_rows, server_rows
from gateway.admin import admin_routes
from gateway.app import guarded
from gateway.builds import build_routes
from gateway.demand import demand_routes
from model_registry.build_jobs.entities import AskedBuild
from model_registry.build_jobs.store import BuildStore
from model_registry.config import RegistryConfig
from model_registry.demand.demand import Demand, EndpointDemand, GroupDemand, WorkerDemand
from model_registry.demand.store import DemandStore
from model_registry.engine_specs import EngineSpec
from model_registry.entities import Deployment, Endpoint, Model, Scaling, ServerRef
from model_registry.pools import Pool, PoolServer, TritonActuator
from model_registry.replicas import Replica, ReplicaState, ScalingStatus, Signal
from model_registry.rollouts import Rollout
from model_registry.snapshot import Snapshot
from model_registry.store import RegistryStore
from model_registry.watcher import Watcher
from tests.enginehouse.test_history import run
from tests.gateway.test_admin import ADMIN, Admin, watcher
from tests.model_registry.conftest import eventually, redis_client, redis_server, store
from tests.model_registry.patience import patient_config

__all__ = ["patient_config", "redis_client", "redis_server", "store", "watcher"]

A, B = "http://a:8000", "http://b:8000"
SERVERS = PoolServer(http=A, memory_mib=500), PoolServer(http=B)
POOL = Pool(name="gpus", actuator=TritonActuator(type="triton", servers=SERVERS))
FIXED = Deployment(
    name="fixed", model="m", lane="openai-http", servers=(ServerRef(http=A), ServerRef(http=B))
)
SCALED = Deployment(name="scaled", model="m", scaling=Scaling(pool="gpus", memory_mib=300, max_replicas=2))
LOAD = Signal(name="load", value=1.25, unit="replicas", source="gateways", age_s=0.1)
STATUS = ScalingStatus(
    name="scaled", model="m", pool="gpus", wanted=2, ready=1, starting=1, reason="demand", signals=(LOAD,)
)


def endpoint(name: str, deployment: str, state: str = "ready", reason: str | None = None) -> Endpoint:
    fields = {
        "deployment": deployment,
        "model": "m",
        "profile": "balanced",
        "lane": "openai-http",
        "target": "m",
    }
    return Endpoint.model_validate({"name": name, **fields, "http": A, "state": state, "reason": reason})


def replica(number: int, place: str, state: ReplicaState, memory_mib: int | None = None) -> Replica:
    return Replica(
        name=f"scaled.{number}", deployment="scaled", model="m", pool="gpus", place=place, state=state,
        memory_mib=memory_mib,
    )  # fmt: skip


EVERYTHING = Snapshot.of(
    1,
    [
        POOL,
        FIXED,
        SCALED,
        STATUS,
        endpoint("fixed@a", "fixed"),
        endpoint("fixed@b", "fixed", "unhealthy", "no answer"),
        endpoint("scaled@a", "scaled"),
        replica(1, A, "ready", 200),
        replica(2, B, "starting"),
        replica(3, B, "draining"),
    ],
)
BUSY = {"scaled@a": EndpointDemand(requests=3), "fixed@a": EndpointDemand(requests=1)}


def demand(at_s: float, **counts: float) -> Demand:
    return Demand(at_s=at_s, age_s=0.5, groups={"m:balanced": GroupDemand(**counts)}, endpoints=BUSY)  # type: ignore[arg-type]


def test_deployments_of_a_model_and_profile_tell_its_requests_once() -> None:
    """Rates and times are of what came between two looks."""
    before = demand(100, arrivals=10, first_tokens=10, ttft_s=1.0, ttft_missed=1)
    now = demand(102, arrivals=20, first_tokens=14, ttft_s=3.0, ttft_missed=3, waiting=5, held=2)
    fixed, scaled = deployment_rows(EVERYTHING, now, before)
    figures = GroupFigures(waiting=5, held=2, per_s=5.0, ttft_s=0.5, late=0.5)
    assert fixed == DeploymentRow(
        "fixed",
        "m",
        "balanced",
        1,
        2,
        0,
        0,
        in_flight=1,
        load=None,
        expected=None,
        why="no answer",
        figures=figures,
    )
    assert scaled == DeploymentRow(
        "scaled",
        "m",
        "balanced",
        1,
        2,
        1,
        0,
        in_flight=3,
        load=1.25,
        expected=None,
        why="demand",
        figures=None,
    )


@pytest.mark.parametrize(
    ("before", "per_s"), [(None, None), (demand(100, arrivals=4), 0.0), (demand(99, arrivals=9), 0.0)]
)
def test_without_two_looks_and_an_answer_no_time_is_told(before: Demand | None, per_s: float | None) -> None:
    """Nor of counts that have fallen, as after a restart of the fleet."""
    row, _ = deployment_rows(EVERYTHING, demand(101, arrivals=4), before)
    assert row.figures == GroupFigures(0, 0, per_s, None, None)


def test_servers_tell_what_they_hold_and_what_that_takes() -> None:
    """Measured, else declared; unknown where a replica's deployment is gone."""
    assert list(server_rows(EVERYTHING)) == [
        ServerRow("gpus", A, ("scaled",), (), (), 200, 500),
        ServerRow("gpus", B, (), ("scaled",), ("scaled",), 600, None),
    ]
    orphan = Snapshot.of(1, [POOL, replica(1, A, "ready")])
    assert [row.taken_mib for row in server_rows(orphan)] == [None, 0]


@pytest.fixture
async def admin(
    store: RegistryStore, watcher: Watcher, redis_client: Redis, config: RegistryConfig
) -> AsyncIterator[Admin]:
    """A gateway's admin side of a fleet in which something of everything is under way."""
    await store.apply([Model(name="m", context_length=9), POOL, FIXED, SCALED])
    other = FIXED.model_copy(update={"name": "other", "weight": 0.0})
    await store.apply([other, Rollout(name="r", model="m", stable="fixed", candidate="other")])
    await store.register_endpoint(endpoint("fixed@a", "fixed"), ttl_s=60)
    leadership = await store.claim_leadership("c", 60)
    assert leadership is not None
    await store.rewrite(
        lambda _fresh, _now_s: ([STATUS, replica(1, A, "ready", 200)], []), leadership=leadership
    )
    demands, builds = DemandStore.of(redis_client, config), BuildStore.of(redis_client, config)
    group = GroupDemand(waiting=7, arrivals=7)
    await demands.report("w", WorkerDemand(groups={"m:balanced": group}, endpoints={}), False)
    spec = EngineSpec.model_validate({"name": "chat", "model": "m", "checkpoint": "/c", "gpu_class": "cpu"})
    asked = AskedBuild("chat-1", "ab" * 32, spec.model_dump(mode="json"), "emulated", "/engines")
    await builds.ask(asked)
    app, reader = web.Application(), watcher.reader()
    routes = [*admin_routes(store, watcher), *demand_routes(demands, reader), *build_routes(builds, reader)]
    app.add_routes(guarded(routes))
    async with TestClient(TestServer(app)) as client:
        yield client


async def test_one_screen_has_deployments_pools_rollouts_and_builds(admin: Admin) -> None:
    """Printed once, after two looks, where there is no terminal."""
    said = await run(admin, "top", "--every", "0.5")
    rows = {line.split()[0]: line.split() for line in said.splitlines() if line.strip()}
    assert rows["scaled"][1:] == ["m:balanced", "1/2", "+1", "1.25", "0"]
    assert "scaled: demand" in said
    assert rows["fixed"][1:] == ["m:balanced", "1/1", "0", "7", "0", "0.0"]
    assert f"{A}  200 of 500 MiB  scaled" in said
    assert "rollout r  m: fixed -> other  pending" in said
    assert "chat-1" in said
    assert "queued" in said


async def test_a_live_screen_keeps_what_was_seen_while_no_gateway_answers(admin: Admin) -> None:
    shown = StringIO()
    console = Console(file=shown, force_terminal=True, width=160, height=40)
    connection = Connection(str(admin.make_url("/")).rstrip("/"), None, ADMIN)
    task = asyncio.create_task(watching.again(connection, console, 0.05))

    async def shows(text: str) -> bool:
        return text in shown.getvalue()

    assert await eventually(lambda: shows("1/2"))
    await admin.close()
    assert await eventually(lambda: shows("this is what was last seen"))
    task.cancel()
    await asyncio.wait([task])


async def test_a_key_without_admin_rights_is_refused(admin: Admin) -> None:
    connection = Connection(str(admin.make_url("/")).rstrip("/"), None, "eh-nobody")
    with pytest.raises(ApiError, match="HTTP 401"):
        await watching.once(connection, Console(file=StringIO()), 0.05)
