"""A pool of real processes, a scaler that the test sets by hand, and controllers that share them."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bench.scale import tiny_server
from controller.actuators.catalogue import Surroundings, actuator_of
from controller.config import ControllerConfig
from controller.replicas.config import ReplicasConfig
from controller.replicas.fence import Fence
from controller.replicas.run import Replicas
from controller.run import Controller
from controller.scaling.wanted import Wanted
from inference.control import health
from inference.introspection import introspect
from model_registry.config import RegistryConfig
from model_registry.demand.demand import Demand, EndpointDemand
from model_registry.entities import Deployment, Model, Scaling
from model_registry.pools import Pool, ProcessActuator
from model_registry.snapshot import Snapshot
from model_registry.store import RegistryStore
from telemetry.process_stat import stat_of
from tests.controller.conftest import RedisServer, redis_client, redis_server, store

__all__ = ["RedisServer", "config", "redis_client", "redis_server", "store"]

TINY = Path(tiny_server.__file__)
FAST = ReplicasConfig(
    margin_s=0.3, drain_s=20, settle_s=0, replace_after_s=1.0, retry_s=0.2, look_s=0.1, orphan_s=0.2
)
CONTROLLER = ControllerConfig(interval_s=0.1, probe_timeout_s=0.5, drain_s=0.5, leadership_ttl_s=1.0)
MODEL = Model(name="m", context_length=100)


@pytest.fixture
def config(redis_server: RedisServer) -> RegistryConfig:
    """Patient: processes that start beside it keep Redis from its core."""
    return RegistryConfig(redis_url=redis_server.url, name="test", command_timeout_s=5.0, block_s=0.2)


class ByHand:
    """Asks for what the test says."""

    def __init__(self, wanted: int = 0) -> None:
        self.wanted = wanted

    def look(self, now_s: float, snapshot: Snapshot, demand: Demand) -> Mapping[str, Wanted]:
        return {
            name: Wanted(self.wanted, "by hand")
            for group in snapshot.deployments.values()
            for name in (one.name for one in group if one.scaling is not None)
        }


class Told:
    """Reports as the test says; fresh unless it says otherwise."""

    def __init__(self, store: RegistryStore) -> None:
        self._store = store
        self.age_s: float | None = 0.0
        self.endpoints: dict[str, EndpointDemand] = {}

    async def gather(self) -> Demand:
        at_s = (await self._store.contents()).now_ms / 1000
        return Demand(at_s=at_s, age_s=self.age_s, workers=1, endpoints=self.endpoints)


class Processes:
    """A pool of tiny servers and what has been started in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.acts = folder / "acts"
        self.pool = self.pool_of(sys.executable, "-S", "-E", str(TINY), "{http_port}", str(self.acts))
        scaling = Scaling(pool="p", min_replicas=0, max_replicas=5)
        self.deployment = Deployment(name="d", model="m", lane="openai-http", scaling=scaling)

    def pool_of(self, *command: str, **fields: float) -> Pool:
        actuator = ProcessActuator(
            type="process", command=command, start_timeout_s=10, stop_timeout_s=5, **fields
        )
        return Pool(name="p", actuator=actuator)

    def pids(self) -> list[int]:
        """Of every server that was started and runs."""
        return [pid for act in self.done() if act["act"] == "start" and stat_of(pid := act["pid"])]

    def done(self) -> list[dict[str, Any]]:
        """All that was done to servers, as they tell it."""
        lines = self.acts.read_text().splitlines() if self.acts.exists() else []
        return [json.loads(line) for line in lines]

    def replicas(self, fence: Fence, scaler: ByHand, told: Told, store: RegistryStore) -> Replicas:
        surroundings = Surroundings("test", self.state, dict(os.environ), fence.token)
        return Replicas(store, scaler, told, partial(actuator_of, surroundings=surroundings), fence, FAST)

    def controller(self, store: RegistryStore, scaler: ByHand, told: Told) -> Controller:
        replicas = self.replicas(Fence(FAST.margin_s), scaler, told, store)
        return Controller(store, introspect, health, CONTROLLER, endpoint_ttl_s=1.0, replicas=replicas)


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    processes = Processes(tmp_path / "pool")
    processes.folder.mkdir()
    yield processes
    for pid in processes.pids():
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def scaler() -> ByHand:
    return ByHand()


@pytest.fixture
def told(store: RegistryStore) -> Told:
    return Told(store)
