"""Builds by a fleet: a command asks a gateway, a builder does it, and others look on."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer
from redis.asyncio import Redis
from typer.testing import CliRunner, Result

from bench.tiny_engines import TinyParts, checkpoint, spec, whole
from engine_builder.config import BuilderConfig
from enginehouse.builder_process import work
from enginehouse.cli import app
from enginehouse.settings import Settings
from gateway.admin import admin_routes
from gateway.app import guarded
from gateway.builds import build_routes
from model_registry.build_jobs.store import BuildStore
from model_registry.config import RegistryConfig
from model_registry.manifests import to_yaml
from model_registry.store import RegistryStore
from model_registry.tenants import ApiKey, Tenant
from model_registry.watcher import Watcher
from tenancy.keys import new_key
from tests.model_registry.conftest import eventually, redis_client, redis_server, store
from tests.model_registry.patience import patient_config

__all__ = ["patient_config", "redis_client", "redis_server", "store"]

ADMIN, ADMIN_HASH = new_key()


class Fleet:
    """A gateway's admin API over a real Redis, and builders of tiny engines."""

    def __init__(self, folder: Path, url: str, registry: RegistryConfig) -> None:
        self.folder = folder
        self._environment = {"ENGINEHOUSE_URL": url, "ENGINEHOUSE_ADMIN_KEY": ADMIN, "COLUMNS": "200"}
        builder = BuilderConfig(
            lease_s=1, heartbeat_s=0.05, poll_s=0.05, min_free_disk_gib=0, min_free_memory_gib=0
        )
        self._settings = Settings(registry=registry, builder=builder)

    async def command(self, *arguments: str) -> Result:
        """One command, beside the loop that answers it."""
        return await asyncio.to_thread(CliRunner().invoke, app, list(arguments), env=self._environment)

    async def build(self, *more: str) -> Result:
        return await self.command(
            "build", "-f", str(self.folder / "spec.yaml"), "--runtime", "emulated", *more
        )

    async def builder(self, *, once: bool = True, pause_s: float = 0.0) -> bool:
        parts = TinyParts(self.folder, pause_s)
        cache = self.folder / "cache"
        return await work(self._settings, parts, once=once, runtime="emulated", cache=cache)


@pytest.fixture
async def fleet(
    tmp_path: Path,
    store: RegistryStore,
    redis_client: Redis,
    config: RegistryConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Fleet]:
    for name in [name for name in os.environ if name.startswith("ENGINEHOUSE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("ENGINEHOUSE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr("enginehouse.build_command.parts", lambda _: TinyParts(tmp_path))
    root = ApiKey(name="root", tenant="acme", sha256=ADMIN_HASH, admin=True)
    checkpoint(tmp_path)
    tiny = spec(tmp_path)
    await store.apply([Tenant(name="acme"), root, tiny])
    (tmp_path / "spec.yaml").write_text(to_yaml([tiny]))
    async with Watcher(store, config=config) as watcher:
        builds = BuildStore.of(redis_client, config)
        application = web.Application()
        routes = [*admin_routes(store, watcher), *build_routes(builds, lambda: watcher.current)]
        application.add_routes(guarded(routes))
        async with TestServer(application) as server:
            yield Fleet(tmp_path, str(server.make_url("/")), config)


async def test_a_build_is_done_by_a_builder_and_followed(fleet: Fleet, tmp_path: Path) -> None:
    """By the name of a spec that the registry has; the engine's manifest is printed in the end."""
    building = asyncio.create_task(fleet.builder(once=False))
    done = await fleet.command("build", "tiny", "--runtime", "emulated", "--store", str(tmp_path / "store"))
    building.cancel()
    assert done.exit_code == 0, (done.stderr, done.exception)
    engine = yaml.safe_load(done.stdout)
    assert (engine["kind"], Path(engine["spec"]["url"]).parent) == ("Engine", tmp_path / "store")
    assert whole(Path(engine["spec"]["url"]))
    assert "compile | file 3" in done.stderr
    again = json.loads((await fleet.command("builds", "list", "--json")).stdout)
    assert [(one["state"], one["asked"]["engine"]) for one in again] == [
        ("succeeded", engine["metadata"]["name"])
    ]


async def test_builds_are_listed_shown_and_read(fleet: Fleet) -> None:
    """Asked for twice, it is one build; where the store is not said, it is the builder's."""
    build = (await fleet.build("--detach")).stdout.strip()
    assert (await fleet.build("--detach")).stdout.strip() == build
    assert "queued" in (await fleet.command("builds", "list")).stdout
    assert await fleet.builder()
    listed = (await fleet.command("builds", "list")).stdout
    assert "succeeded" in listed
    assert "3/3 compile" in listed
    shown = (await fleet.command("builds", "show", build)).stdout
    assert "state:    succeeded" in shown
    assert "step:     3 of 3, compile: done" in shown
    log = (await fleet.command("builds", "logs", "-f", build)).stdout.splitlines()
    assert log[:2] == ["convert | file 0", "convert | file 1"]
    assert log[-1].startswith("publish | published at ")


async def test_a_build_that_nobody_can_do_says_so_and_is_not_waited_for_without_end(fleet: Fleet) -> None:
    """Whoever looks is told how to start a builder; the build itself stays."""
    detached = await fleet.build("--detach")
    assert "no builder has looked for builds here yet" in detached.stderr
    assert "`enginehouse builder` runs one, --local" in detached.stderr
    waited = await fleet.build("--builder-timeout", "0")
    assert "has waited for 0 s, and nobody can do it" in str(waited.exception)
    build = detached.stdout.strip()
    assert "waits:    no builder has looked" in (await fleet.command("builds", "show", build)).stdout
    listed = await fleet.command("builds", "list")
    assert f"{build}: no builder has looked" in listed.stderr
    assert await fleet.builder(), "which is left in the queue for the first that comes"
    assert "no builder has looked" not in (await fleet.command("builds", "list")).stderr


async def test_a_build_is_cancelled_by_command(fleet: Fleet) -> None:
    """One that waits at once; one that has ended is left alone."""
    build = (await fleet.build("--detach")).stdout.strip()
    assert (await fleet.command("builds", "cancel", build)).stdout == f"{build} cancelled\n"
    assert "has ended (cancelled)" in str((await fleet.command("builds", "cancel", build)).exception)


async def test_who_follows_a_build_is_told_that_it_was_cancelled(
    fleet: Fleet, redis_client: Redis, config: RegistryConfig
) -> None:
    builds = BuildStore.of(redis_client, config)
    building = asyncio.create_task(fleet.builder(once=False, pause_s=5.0))
    following = asyncio.create_task(fleet.build())

    async def running() -> str:
        return next((one.id for one in await builds.newest() if one.state == "running"), "")

    build = await eventually(running)
    await builds.cancel(build)
    assert f"{build} was cancelled" in str((await following).exception)
    building.cancel()


async def test_a_build_that_failed_says_why(fleet: Fleet, tmp_path: Path) -> None:
    """The error, what to do, and the end of the log; the builder's exit status tells it, too."""
    build = (await fleet.build("--detach")).stdout.strip()
    (tmp_path / "checkpoint" / "model.safetensors").write_bytes(b"other weights")
    assert not await fleet.builder()
    shown = (await fleet.command("builds", "show", build)).stdout
    assert "error:" in shown
    assert "is not what it was when tiny-" in shown
    assert "ask for it again" in shown
