"""`enginehouse controller` on Kubernetes: it scales, and KEDA and Prometheus are told the same."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import grpc  # type: ignore[import-untyped]
import pytest

from controller.config import ControllerConfig
from controller.keda.messages import METHODS
from enginehouse.controller_ports import ControllerPorts
from enginehouse.errors import SettingsError
from model_registry.entities import Deployment, Scaling
from model_registry.pools import Pool
from model_registry.store import RegistryStore
from tests.command_line import plain_environment
from tests.controller.actuators.kubernetes.cluster import Cluster
from tests.controller.actuators.kubernetes.conftest import settings_for
from tests.controller.conftest import redis_client, redis_server, store
from tests.controller.metrics.test_page import NOTHING
from tests.controller.replicas.conftest import MODEL
from tests.controller.replicas.test_workloads import House, model_port
from tests.model_registry.conftest import RedisServer, eventually, free_port
from tests.model_registry.patience import patient_config

__all__ = ["model_port", "patient_config", "redis_client", "redis_server", "store"]


async def _told(keda_port: int, metrics_port: int) -> tuple[bool, int, str]:
    """Whether it is active, how many are wanted, and the line of the page that says the same."""
    address = "/externalscaler.ExternalScaler"
    reference = METHODS["IsActive"].request(name="chat", scalerMetadata={"deployment": "chat"})
    asked = METHODS["GetMetrics"].request(scaledObjectRef=reference, metricName="enginehouse-wanted-replicas")
    async with (
        grpc.aio.insecure_channel(f"127.0.0.1:{keda_port}") as channel,
        aiohttp.ClientSession() as session,
    ):
        answers = []
        for method, request in (("IsActive", reference), ("GetMetrics", asked)):
            kinds = METHODS[method]
            call = channel.unary_unary(
                f"{address}/{method}", kinds.request.SerializeToString, kinds.response.FromString
            )
            answers.append(await call(request))
        async with session.get(f"http://127.0.0.1:{metrics_port}/metrics") as response:
            lines = (await response.text()).splitlines()
    wanted = next((line for line in lines if line.startswith("enginehouse_wanted_replicas{")), "")
    return answers[0].result, answers[1].metricValues[0].metricValue, wanted


async def test_a_controller_process_scales_and_tells(
    tmp_path: Path, model_port: int, store: RegistryStore, redis_server: RedisServer
) -> None:
    scaling = Scaling(pool="k8s", min_replicas=2, max_replicas=3)
    keda_port, metrics_port = free_port(), free_port()
    environment = plain_environment(
        ENGINEHOUSE_REGISTRY__REDIS_URL=redis_server.url,
        ENGINEHOUSE_REGISTRY__NAME=store.name,
        ENGINEHOUSE_CONTROLLER__INTERVAL_S="0.2",
        ENGINEHOUSE_CONTROLLER__KEDA_PORT=str(keda_port),
        ENGINEHOUSE_CONTROLLER__METRICS_PORT=str(metrics_port),
    )
    async with Cluster(port=model_port, net="127.1.0").running() as cluster:
        house = House(cluster, tmp_path, store)
        pool = Pool(name="k8s", actuator=settings_for(cluster, tmp_path))
        await store.apply(
            [MODEL, pool, Deployment(name="chat", model="m", lane="openai-http", scaling=scaling)]
        )
        working = asyncio.create_task(house.work())
        with (tmp_path / "controller.log").open("wb") as log:
            command = [sys.executable, "-m", "enginehouse", "controller"]
            process = subprocess.Popen(command, env=environment, stderr=log)  # noqa: ASYNC220
        try:

            async def is_up() -> bool:
                snapshot = await store.load()
                return [one.state for one in snapshot.replicas.get("chat", ())] == ["ready", "ready"]

            await eventually(is_up, within_s=60)
            line = 'enginehouse_wanted_replicas{deployment="chat",model="m",pool="k8s"} 2.0'
            assert await _told(keda_port, metrics_port) == (True, 2, line)
            assert len(cluster.pods) == 2
        finally:
            process.terminate()
            assert process.wait(30) == 0, (tmp_path / "controller.log").read_text()
            working.cancel()


@pytest.fixture
async def taken() -> AsyncIterator[int]:
    server = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


@pytest.mark.parametrize("field", ["metrics_port", "keda_port"])
async def test_a_port_that_is_taken_is_named_by_its_setting(taken: int, field: str) -> None:
    ports = ControllerPorts(ControllerConfig.model_validate({field: taken}))
    with pytest.raises(SettingsError, match=rf"controller\.{field}: cannot listen on 127\.0\.0\.1:{taken}"):
        await ports.open(NOTHING)
    await ports.close()
