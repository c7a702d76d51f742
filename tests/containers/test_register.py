"""The job `register`, before a real Redis and a real gateway: keys, models, and an answer of each."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from unittest.mock import patch

from redis.asyncio import Redis

from enginehouse.containers import register, secrets
from model_registry.config import RegistryConfig
from model_registry.store import RegistryStore
from model_registry.tenants import Tenant
from tests.command_line import plain_environment
from tests.enginehouse.fleet import CountingServer, fleet
from tests.model_registry.conftest import config, redis_client, redis_server

__all__ = ["config", "redis_client", "redis_server"]

MANIFEST = """
kind: Model
name: m
context_length: 2048
---
kind: Deployment
name: d
model: m
lane: openai-http
servers: [{{http: "{upstream}"}}]
"""


def run(folder: Path, *arguments: str, **variables: str) -> tuple[int, str, str]:
    """The job in this process: its status, what it wrote, and what it complained of."""
    keys = {
        f"ENGINEHOUSE_{name.upper()}_FILE": str(folder / "keys" / name) for name in ("api_key", "admin_key")
    }
    out, errors = StringIO(), StringIO()
    with (
        patch.dict(os.environ, plain_environment(**keys, **variables), clear=True),
        patch.object(sys, "argv", ["register", *arguments]),
        redirect_stdout(out),
        redirect_stderr(errors),
    ):
        status = register.main()
    return status, out.getvalue(), errors.getvalue()


async def test_a_new_stack_gets_its_keys_and_models(
    tmp_path: Path, config: RegistryConfig, redis_client: Redis
) -> None:
    """The key is printed once every model answers; a second run finds all of it there."""
    secrets.make(tmp_path)
    server = CountingServer()
    async with (
        server.listening() as upstream,
        fleet(config, redis_client, upstream, tmp_path, Tenant(name="t"), gateways=1, workers=1) as running,
    ):
        (tmp_path / "models.yaml").write_text(MANIFEST.format(upstream=upstream))
        variables = {
            "ENGINEHOUSE_REGISTRY__REDIS_URL": config.redis_url,
            "ENGINEHOUSE_REGISTRY__NAME": config.name,
            "ENGINEHOUSE_URL": f"http://127.0.0.1:{running.ports[0]}",
        }
        url, manifest = "http://house:8080", str(tmp_path / "models.yaml")
        for _ in range(2):
            status, told, complaint = await asyncio.to_thread(run, tmp_path, url, manifest, **variables)
            assert status == 0, complaint
            key = (tmp_path / "keys" / "api_key").read_text().strip()
            assert told.endswith(f"every model answers at {url}/v1\nkey: {key}\n")
        store = RegistryStore.of(redis_client, config)
        keys = {one.name for one in await store.list("ApiKey")}
    assert keys >= {"first", "first-admin"}
    assert server.begun_s


async def test_what_is_in_the_way_is_said(tmp_path: Path) -> None:
    """No Redis, no keys, nothing to register."""
    secrets.make(tmp_path)
    manifest = tmp_path / "models.yaml"
    manifest.write_text("kind: Model\nname: m\ncontext_length: 8\n")
    gone = {
        "ENGINEHOUSE_REGISTRY__REDIS_URL": f"unix://{tmp_path}/none.sock",
        "ENGINEHOUSE_URL": "http://127.0.0.1:9",
    }
    cases = [
        (tmp_path, ("http://h", str(manifest)), "the registry cannot be used"),
        (tmp_path / "none", ("http://h", str(manifest)), "none/keys/api_key: No such file"),
        (tmp_path, ("http://h",), "at least one manifest"),
    ]
    for folder, arguments, said in cases:
        status, _, complaint = await asyncio.to_thread(run, folder, *arguments, **gone)
        assert status > 0
        assert said in complaint
