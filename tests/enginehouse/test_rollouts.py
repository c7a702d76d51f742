"""A rollout as it is run: a real gateway, controller, Redis and engines, while clients go on asking."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from enginehouse.first_key import create_first_key
from enginehouse.local.ports import free_port
from model_registry.config import RegistryConfig
from model_registry.entities import Deployment, Model, ServerRef
from model_registry.rollouts import CanaryStep, Limit, Limits, RateLimit, Rollout, RolloutStatus, ShadowPlan
from model_registry.store import RegistryStore
from tests.command_line import plain_environment
from tests.model_registry.conftest import RedisServer, config, eventually, redis_client, redis_server, store

__all__ = ["config", "redis_client", "redis_server", "store"]

CLIENTS = 4
MODEL_DIR = "emulator/models/depot-chat"


class Engines:
    """Two OpenAI-HTTP servers over CPU engines, of one model; the second may be made worse."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    async def start(self, name: str) -> str:
        ready = self._folder / f"{name}.json"
        command = [sys.executable, "-m", "emulator.openai_server", "--name", "m", "--ready-file", str(ready)]
        command += ["--model-dir", MODEL_DIR, "--fault-file", str(self._folder / f"{name}.fault")]
        with (self._folder / f"{name}.log").open("wb") as log:
            self._processes[name] = subprocess.Popen(command, stdout=log, stderr=log)  # noqa: ASYNC220

        async def written() -> bool:
            return ready.exists()

        await eventually(written, within_s=30)
        return str(json.loads(ready.read_text())["base_url"]).removesuffix("/v1")

    def fail(self, name: str) -> None:
        (self._folder / f"{name}.fault").write_text('{"fault": "error_before"}')

    def recover(self, name: str) -> None:
        (self._folder / f"{name}.fault").unlink()

    def kill(self, name: str) -> None:
        self._processes[name].kill()
        self._processes[name].wait()

    def stop(self) -> None:
        for name in self._processes:
            self.kill(name)


class Clients:
    """Ask without a pause, one streaming, until they are told to stop; every ending is kept."""

    def __init__(self, session: aiohttp.ClientSession, root: str) -> None:
        self._session = session
        self._root = root
        self._stopped = False
        self.endings: Counter[str] = Counter()
        self.candidate = 0
        """Answers of the candidate's, by the gateway's own header."""

    async def ask(self, number: int) -> None:
        question = f"What is house number {number}?"
        body = {"model": "m", "max_tokens": 6, "temperature": 0, "stream": number % 2 == 0}
        body |= {"messages": [{"role": "user", "content": question}]}
        headers = {"x-enginehouse-explain": "1"}
        try:
            async with self._session.post(
                f"{self._root}/v1/chat/completions", json=body, headers=headers
            ) as response:
                text = await response.text()
                self.candidate += "candidate@" in response.headers.get("x-enginehouse-decision", "")
                whole = response.status == 200 and (not body["stream"] or text.endswith("data: [DONE]\n\n"))
                self.endings["whole" if whole else f"{response.status} {text[-200:]}"] += 1
        except aiohttp.ClientError as error:
            self.endings[repr(error)] += 1

    async def _go_on(self, number: int) -> None:
        while not self._stopped:
            await self.ask(number)
            number += CLIENTS

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                group.create_task(self._go_on(number))
            try:
                yield
            finally:
                self._stopped = True


@pytest.fixture
def engines(tmp_path: Path) -> Any:
    found = Engines(tmp_path)
    yield found
    found.stop()


@pytest.fixture
async def clients(
    store: RegistryStore, config: RegistryConfig, redis_server: RedisServer, engines: Engines, tmp_path: Path
) -> AsyncIterator[Clients]:
    """Ready, with a stable deployment and a candidate that stands by."""
    key = await create_first_key(config, "k", "t", admin=False)
    stable, candidate = await asyncio.gather(engines.start("stable"), engines.start("candidate"))
    deployed = {"model": "m", "lane": "openai-http", "max_concurrency": 8}
    await store.apply(
        [
            Model(name="m", context_length=2048),
            Deployment(name="stable", servers=(ServerRef(http=stable),), **deployed),
            Deployment(name="candidate", servers=(ServerRef(http=candidate),), weight=0, **deployed),
        ]
    )
    port = free_port()
    environment = plain_environment(
        ENGINEHOUSE_REGISTRY__REDIS_URL=redis_server.url,
        ENGINEHOUSE_REGISTRY__NAME=config.name,
        ENGINEHOUSE_GATEWAY__PORT=str(port),
        ENGINEHOUSE_CONTROLLER__INTERVAL_S="0.2",
    )
    processes = []
    for name in ("gateway", "controller"):
        with (tmp_path / f"{name}.log").open("wb") as log:
            command = [sys.executable, "-m", "enginehouse", name]
            processes.append(subprocess.Popen(command, env=environment, stderr=log))  # noqa: ASYNC220
    try:
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as session:
            found = Clients(session, f"http://127.0.0.1:{port}")

            async def serves() -> bool:
                try:
                    async with session.get(f"http://127.0.0.1:{port}/readyz") as response:
                        ready = response.status == 200
                except aiohttp.ClientError:
                    return False
                registered = (await store.load()).endpoints.get("m", ())
                return ready and len([one for one in registered if one.state == "ready"]) == 2

            await eventually(serves, within_s=60, every_s=0.05)
            yield found
    finally:
        for process in processes:
            process.kill()
            process.wait()


def rollout(name: str = "r", **more: Any) -> Rollout:
    """Quick: few samples tell, by wide bounds for times, which two busy cores make anything but equal."""
    wide = Limit(harmless=3.0, harmful=9.0)
    limits = Limits(
        answers=RateLimit(harmless=0.01, harmful=0.3),
        errors=RateLimit(harmless=0.01, harmful=0.3),
        finish=RateLimit(harmless=0.02, harmful=0.3),
        pace=wide, ttft=wide,
    )  # fmt: skip
    return Rollout(
        name=name, model="m", stable="stable", candidate="candidate", limits=limits,
        shadow=ShadowPlan(min_samples=20, min_s=0.5),
        steps=(CanaryStep(share=0.3, min_samples=10, min_s=0.5),),
        **more,
    )  # fmt: skip


async def ended(store: RegistryStore, name: str = "r") -> RolloutStatus:
    async def final() -> RolloutStatus | None:
        found = await store.get("RolloutStatus", name)
        assert found is None or isinstance(found, RolloutStatus)
        return found if found is not None and found.phase in {"promoted", "rolled_back"} else None

    return await eventually(final, within_s=60, every_s=0.05)


async def test_a_candidate_that_is_no_worse_takes_over_and_a_broken_one_does_not(
    store: RegistryStore, clients: Clients, engines: Engines
) -> None:
    """One gateway, one after the other; no client notices either."""
    async with clients.asking():
        await store.apply([rollout()])
        status = await ended(store)
        assert status.phase == "promoted", status.reason
        before = clients.candidate

        async def served() -> bool:
            return clients.candidate > before + 20

        await eventually(served, within_s=20, every_s=0.02)
        weights = {one.name: one.weight for one in (await store.load()).deployments["m"]}
        assert weights == {"stable": 0.0, "candidate": 1.0}

        engines.fail("stable")  # which is now the candidate of another try
        swapped = rollout("back", run=1).model_copy(update={"stable": "candidate", "candidate": "stable"})
        await store.apply([swapped])
        status = await ended(store, "back")
        assert status.phase == "rolled_back", status.reason
        assert "shadow.errors" in status.reason
        assert status.exposed == 0.0

        engines.recover("stable")
        long = swapped.shadow.model_copy(update={"min_s": 600}) if swapped.shadow is not None else None
        await store.apply([swapped.model_copy(update={"run": 2, "shadow": long, "unready_s": 1.0})])

        async def copies() -> bool:
            found = await store.get("RolloutStatus", "back")
            return isinstance(found, RolloutStatus) and found.phase == "shadow" and found.samples > 0

        await eventually(copies, within_s=20)
        engines.kill("stable")
        status = await ended(store, "back")
        assert status.phase == "rolled_back", status.reason
        assert "shadow.errors" in status.reason or "no ready endpoint" in status.reason
        assert status.exposed == 0.0
    assert set(clients.endings) == {"whole"}, clients.endings
    weights = {one.name: one.weight for one in (await store.load()).deployments["m"]}
    assert weights == {"stable": 0.0, "candidate": 1.0}
