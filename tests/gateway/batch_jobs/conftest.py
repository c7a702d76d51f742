"""A real gateway of several workers, a real Redis, and a model server that counts what it is asked."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import aiohttp
import openai
import psutil
import pytest
from openai import AsyncOpenAI

from bench.tally import MODEL, Tally
from enginehouse.local.ports import free_port
from model_registry.config import RegistryConfig
from model_registry.entities import Deployment, Endpoint, Model, ServerRef
from model_registry.store import RegistryStore
from model_registry.tenants import ApiKey, Tenant
from tenancy.keys import new_key
from tests.command_line import plain_environment
from tests.model_registry.conftest import (
    RedisServer,
    config,
    eventually,
    redis_client,
    redis_server,
    store,
    until,
)

__all__ = ["config", "redis_client", "redis_server", "store"]

SLOTS = 16
WORKERS = 2
DEADLINE_S = 90.0
"""A machine that is busy with other tests starts a gateway slowly."""


class Fleet:
    """The gateway's supervisor and its workers, and clients of two tenants."""

    def __init__(self, environment: dict[str, str], port: int, folder: Path, keys: dict[str, str]) -> None:
        self._environment = environment
        self.port = port
        self.folder = folder
        self.keys = keys
        self.root = f"http://127.0.0.1:{port}"
        self.process: subprocess.Popen[bytes] | None = None
        self.acme = self.client("acme")
        self.other = self.client("other")

    def client(self, tenant: str) -> AsyncOpenAI:
        return AsyncOpenAI(base_url=f"{self.root}/v1", api_key=self.keys[tenant], max_retries=5, timeout=30)

    async def start(self) -> None:
        with (self.folder / "gateway.log").open("ab") as log:
            self.process = subprocess.Popen(  # noqa: ASYNC220 - returns at once
                [sys.executable, "-m", "enginehouse", "gateway"], env=self._environment, stderr=log
            )
        await eventually(self._serves, within_s=DEADLINE_S, every_s=0.05)

    async def _serves(self) -> bool:
        try:
            await self.acme.with_options(max_retries=0).models.list()
        except openai.APIError:
            return False
        return len(self.workers()) == WORKERS

    def workers(self) -> list[psutil.Process]:
        assert self.process is not None
        try:
            return psutil.Process(self.process.pid).children()
        except psutil.NoSuchProcess:
            return []

    def kill(self) -> None:
        """SIGKILL for the supervisor and every worker."""
        if self.process is not None:
            for process in [psutil.Process(self.process.pid), *self.workers()]:
                process.kill()
            self.process.wait()
            self.process = None

    async def metric(self, name: str) -> float:
        """The sum of all series that begin so."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.root}/metrics") as page:
            lines = (await page.text()).splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))

    async def upload(self, rows: Iterable[Any], **options: Any) -> str:
        """A file of rows (objects, or lines as they are); its id."""
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        content = "\n".join(lines).encode()
        file = await self.acme.files.create(file=("rows.jsonl", content), purpose="batch", **options)
        return file.id

    async def run(self, rows: Iterable[Any]) -> Any:
        """A new job for these rows."""
        return await self.acme.batches.create(
            input_file_id=await self.upload(rows),
            endpoint="/v1/chat/completions",
            completion_window="24h",
            metadata={"of": "a test"},
        )

    async def until(self, job_id: str, *statuses: str) -> Any:
        async def reached() -> Any:
            job = await self.acme.batches.retrieve(job_id)
            return job if job.status in statuses else None

        return await eventually(reached, within_s=DEADLINE_S, every_s=0.05)

    async def lines(self, file_id: str | None) -> list[Any]:
        if file_id is None:
            return []
        content = await self.acme.files.content(file_id)
        return [json.loads(line) for line in content.text.splitlines()]


def row(number: int, **changes: Any) -> dict[str, Any]:
    body = {"model": MODEL, "messages": [{"role": "user", "content": f"row {number}"}]}
    return {
        "custom_id": f"r{number}",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": body,
        **changes,
    }


@pytest.fixture
async def tally() -> AsyncIterator[Tally]:
    async with Tally() as tally:
        yield tally


@pytest.fixture
def settings() -> dict[str, str]:
    """Settings beside where things are; a test may parametrize it."""
    return {}


@pytest.fixture
async def fleet(
    tally: Tally,
    store: RegistryStore,
    config: RegistryConfig,
    redis_server: RedisServer,
    settings: dict[str, str],
    tmp_path: Path,
) -> AsyncIterator[Fleet]:
    """Ready, with one endpoint of `SLOTS` slots."""
    made = {tenant: new_key() for tenant in ("acme", "other")}
    server = ServerRef(http=tally.url)
    await store.apply(
        [
            Model(name=MODEL, context_length=2048),
            Model(name="secret", context_length=2048),
            Deployment(name="d", model=MODEL, lane="openai-http", servers=(server,)),
            *(Tenant(name=tenant, allowed_models=(MODEL,)) for tenant in made),
            *(ApiKey(name=f"{t}-key", tenant=t, sha256=digest) for t, (_, digest) in made.items()),
        ]
    )
    await store.register_endpoint(
        Endpoint(
            name="d@tally", deployment="d", model=MODEL, profile="balanced", lane="openai-http",
            target=MODEL, http=tally.url, state="ready", max_concurrency=SLOTS,
        ),
        ttl_s=600,
    )  # fmt: skip
    port = free_port()
    chosen = {
        "REGISTRY__REDIS_URL": redis_server.url,
        "REGISTRY__NAME": config.name,
        "GATEWAY__PORT": str(port),
        "GATEWAY__WORKERS": str(WORKERS),
        "BATCH_JOBS__STORE_PATH": str(tmp_path / "batch-jobs"),
        "BATCH_JOBS__POLL_S": "0.1",
        "BATCH_JOBS__LEASE_S": "1.5",
        "BATCH_JOBS__SLICE_ROWS": "8",
        **settings,
    }
    environment = plain_environment(**{f"ENGINEHOUSE_{name}": value for name, value in chosen.items()})
    fleet = Fleet(environment, port, tmp_path, {tenant: clear for tenant, (clear, _) in made.items()})
    await fleet.start()
    try:
        yield fleet
    finally:
        await fleet.acme.close()
        await fleet.other.close()
        fleet.kill()


async def ask_live(fleet: Fleet, number: int) -> Any:
    """One interactive request."""
    return await fleet.acme.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": f"live {number}"}]
    )


async def settled(tally: Tally, rows: int, live: int) -> None:
    """Until exactly so many are in flight."""
    try:
        await until(lambda: (tally.rows, tally.live) == (rows, live), within_s=DEADLINE_S)
    except AssertionError as error:
        error.add_note(f"{tally.rows} rows and {tally.live} others are in flight, not {rows} and {live}")
        raise
