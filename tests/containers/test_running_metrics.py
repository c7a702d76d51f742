"""What dashboards and docs/metrics.md speak of, beside the pages of a running gateway and controller."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from bench.containers.client import DASHBOARDS, panels_of
from enginehouse.first_key import create_first_key
from enginehouse.local.ports import free_port
from model_registry.config import RegistryConfig
from model_registry.store import RegistryStore
from tests.command_line import plain_environment
from tests.controller.conftest import RedisServer, redis_client, redis_server, store
from tests.controller.replicas.conftest import MODEL, Processes, config, processes
from tests.model_registry.conftest import eventually

__all__ = ["config", "processes", "redis_client", "redis_server", "store"]

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"
ROW = re.compile(r"^\| `(enginehouse_\w+)` \| (\w+) \| (.+?) \|", re.MULTILINE)
ASK = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
SUFFIX = re.compile(r"_(bucket|sum|count)$")


def documented(process: str) -> dict[str, tuple[str, frozenset[str]]]:
    """Type and labels of every metric that the page lists of a gateway or a controller."""
    text = DOCUMENT.read_text().split(f"## Of a {process}\n")[1].split("\n## ")[0]
    return {
        name: (kind, frozenset(re.findall(r"`(\w+)`", labels))) for name, kind, labels in ROW.findall(text)
    }


@asynccontextmanager
async def running(
    folder: Path, environment: dict[str, str], gateway_port: int, metrics_port: int
) -> AsyncIterator[None]:
    """`enginehouse gateway` and `enginehouse controller`; both end in order."""
    own = {
        "ENGINEHOUSE_GATEWAY__PORT": str(gateway_port),
        "ENGINEHOUSE_CONTROLLER__METRICS_PORT": str(metrics_port),
    }
    with ExitStack() as logs:
        started = [
            subprocess.Popen(  # noqa: ASYNC220 - returns at once
                [sys.executable, "-m", "enginehouse", name],
                env=plain_environment(**environment, **own),
                stderr=logs.enter_context((folder / f"{name}.log").open("wb")),
            )
            for name in ("controller", "gateway")
        ]
        try:
            yield
        finally:
            for process in started:
                process.terminate()
            for process in started:
                process.wait(30)


async def page(session: aiohttp.ClientSession, port: int) -> dict[str, Metric]:
    """The families of a page, by the names that the documentation uses."""
    async with session.get(f"http://127.0.0.1:{port}/metrics") as response:
        families = text_string_to_metric_families(await response.text())
        return {f"{one.name}_total" if one.type == "counter" else one.name: one for one in families}


def wrong(families: dict[str, Metric], process: str) -> Sequence[str]:
    """Where a page is not as documented: names, types, and the labels of all that has values."""
    known = documented(process)
    problems = [f"{name}: in one only" for name in families.keys() ^ known.keys()]
    for name in families.keys() & known.keys():
        kind, labels = known[name]
        if families[name].type != kind:
            problems.append(f"{name}: {families[name].type}, not {kind}")
        problems += [
            f"{name}: has {sorted(sample.labels)}"
            for sample in families[name].samples
            if frozenset(sample.labels) - {"le"} != labels
        ]
    return problems


def on_dashboards() -> set[str]:
    """Every metric that a panel asks for."""
    expressions = [
        t["expr"] for board in DASHBOARDS.glob("*.json") for p in panels_of(board) for t in p["targets"]
    ]
    return set(re.findall(r"enginehouse_\w+", " ".join(expressions)))


@pytest.fixture
async def house(store: RegistryStore, config: RegistryConfig, processes: Processes) -> str:
    """A scaled deployment on a pool of small servers, none of which is up; a key."""
    await store.apply([MODEL, processes.pool, processes.deployment])
    return await create_first_key(config, "k", "t", admin=False)


async def test_running_processes_expose_what_is_documented_and_shown(
    house: str, redis_server: RedisServer, config: RegistryConfig, tmp_path: Path
) -> None:
    """By one cold request, which brings a replica up and so leaves its marks on both pages."""
    gateway_port, metrics_port = free_port(), free_port()
    environment = {
        "ENGINEHOUSE_REGISTRY__REDIS_URL": redis_server.url,
        "ENGINEHOUSE_REGISTRY__NAME": config.name,
        "ENGINEHOUSE_STATE_DIR": str(tmp_path / "state"),
        "ENGINEHOUSE_CONTROLLER__INTERVAL_S": "0.2",
    }
    headers = {"Authorization": f"Bearer {house}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        running(tmp_path, environment, gateway_port, metrics_port),
    ):

        async def answered() -> bool:
            try:
                async with session.post(
                    f"http://127.0.0.1:{gateway_port}/v1/chat/completions", json=ASK
                ) as answer:
                    return answer.status == 200 and answer.headers.get("x-enginehouse-cold") == "1"
            except aiohttp.ClientConnectionError:
                return False

        async def counted() -> bool:
            told = (await page(session, gateway_port))["enginehouse_cold_requests_total"]
            return any(sample.value for sample in told.samples)

        async def recorded() -> bool:
            return (await changes())["ready"] == 1

        async def changes() -> dict[str, float]:
            told = (await page(session, metrics_port))["enginehouse_replica_changes_total"]
            return {sample.labels["state"]: sample.value for sample in told.samples}

        assert await eventually(answered, within_s=60)
        assert await eventually(counted)
        assert await eventually(recorded)
        assert (await changes())["starting"] == 1
        gateway, controller = await page(session, gateway_port), await page(session, metrics_port)
    assert not wrong(gateway, "gateway")
    assert not wrong(controller, "controller")
    exposed = gateway.keys() | controller.keys()
    assert {name if name in exposed else SUFFIX.sub("", name) for name in on_dashboards()} <= exposed
    assert [s.value for s in controller["enginehouse_controller_leading"].samples] == [1]
