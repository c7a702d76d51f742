"""Builds by the admin API: asked for, read and cancelled by admins only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from redis.asyncio import Redis

from gateway.app import guarded
from gateway.builds import build_routes
from model_registry.build_jobs.entities import Able, BuildProgress, LogLine
from model_registry.build_jobs.store import BuildStore
from model_registry.config import RegistryConfig
from model_registry.snapshot import Snapshot
from model_registry.tenants import ApiKey, Tenant
from tenancy.keys import new_key
from tests.model_registry.conftest import redis_client, redis_server
from tests.model_registry.patience import patient_config

__all__ = ["patient_config", "redis_client", "redis_server"]

ADMIN, ADMIN_HASH = new_key()
USER, USER_HASH = new_key()
SPEC = {"name": "chat", "checkpoint": "/models/chat", "gpu_class": "cpu"}
ASKED = {
    "engine": "chat-abababababab",
    "digest": "ab" * 32,
    "spec": SPEC,
    "runtime": "emulated",
    "store_url": "",
}

Admin = TestClient[web.Request, web.Application]


@pytest.fixture
def builds(redis_client: Redis, config: RegistryConfig) -> BuildStore:
    return BuildStore.of(redis_client, config)


@pytest.fixture
async def admin(builds: BuildStore) -> AsyncIterator[Admin]:
    keys = (
        ApiKey(name="root", tenant="acme", sha256=ADMIN_HASH, admin=True),
        ApiKey(name="app", tenant="acme", sha256=USER_HASH),
    )
    snapshot = Snapshot.of(1, (Tenant(name="acme"), *keys))
    app = web.Application()
    app.add_routes(guarded(build_routes(builds, lambda: snapshot)))
    headers = {"Authorization": f"Bearer {ADMIN}"}
    async with TestClient(TestServer(app), headers=headers) as client:
        yield client


async def call(admin: Admin, method: str, path: str, status: int = 200, **kwargs: Any) -> Any:
    async with admin.request(method, f"/admin/v1/builds{path}", **kwargs) as response:
        answer = await response.json()
        assert response.status == status, answer
        return answer if status < 400 else answer["error"]


async def test_a_build_is_asked_for_followed_and_cancelled(admin: Admin, builds: BuildStore) -> None:
    """Asked for twice, it is one; its log is read by pages."""
    build = (await call(admin, "POST", "", json=ASKED))["build"]
    assert (build["state"], build["asked"]["engine"]) == ("queued", ASKED["engine"])
    assert (await call(admin, "POST", "", json=ASKED))["build"]["id"] == build["id"]
    claim = await builds.claim("w", Able(("emulated",)), 30)
    assert claim is not None
    at = BuildProgress("compile", 2, 3, "running", 5.0, 1.0, 9.0)
    await builds.beat(claim, 30, at, [LogLine("compile", "one")])
    page = await call(admin, "GET", f"/{build['id']}/log")
    assert page["lines"] == [{"step": "compile", "text": "one"}]
    assert page["build"]["progress"] == msgspec.to_builtins(at)
    assert (await call(admin, "GET", f"/{build['id']}/log?after={page['after']}"))["lines"] == []
    assert (await call(admin, "POST", f"/{build['id']}/cancel"))["build"]["cancelling"]
    await builds.finish(claim, "cancelled")
    assert (await call(admin, "GET", f"/{build['id']}"))["build"]["state"] == "cancelled"
    assert [one["id"] for one in (await call(admin, "GET", "?limit=1"))["builds"]] == [build["id"]]
    assert (await call(admin, "POST", f"/{build['id']}/cancel", 409))["code"] == "build_over"


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"digest": "abc"}, "digest"),
        ({"engine": ""}, "engine"),
        ({"engine": "../elsewhere"}, "engine"),
        ({"gpus": -1}, None),
        ({"spec": {**SPEC, "gpu_class": ""}}, "spec.gpu_class"),
        ({"spec": {**SPEC, "no_such_field": 1}}, "spec.no_such_field"),
        ({"runtime": "other"}, None),
        ({"gpus": "many"}, None),
    ],
)
async def test_what_cannot_be_built_is_refused(
    admin: Admin, changes: dict[str, Any], param: str | None
) -> None:
    """With the field at fault."""
    assert (await call(admin, "POST", "", 400, json=ASKED | changes))["param"] == param
    assert (await call(admin, "GET", ""))["builds"] == []


@pytest.mark.parametrize(
    ("path", "status"),
    [("/build-unknown", 404), ("/build-unknown/log", 404), ("?limit=0", 400), ("/x/log?after=%28now", 400)],
)
async def test_what_is_not_there_is_told(admin: Admin, path: str, status: int) -> None:
    await call(admin, "GET", path, status)


async def test_builders_that_were_there_are_told(admin: Admin, builds: BuildStore) -> None:
    assert (await call(admin, "GET", "/../builders"))["builders"] == []
    await builds.present("a", Able(("emulated",)))
    await builds.present("b", Able(("tensorrt-llm",), "h100-sxm", 4), "build-1")
    await builds.present("a", Able(("emulated",)), "build-2")
    told = (await call(admin, "GET", "/../builders"))["builders"]
    assert {one["name"]: one["build"] for one in told} == {"a": "build-2", "b": "build-1"}
    assert all(one["age_s"] < 10 for one in told)


@pytest.mark.parametrize("key", [USER, "wrong"], ids=["a user's", "none"])
async def test_only_admins_may(admin: Admin, key: str) -> None:
    status, headers = 403 if key == USER else 401, {"Authorization": f"Bearer {key}"}
    for method, path in (
        ("POST", ""),
        ("GET", ""),
        ("GET", "/x"),
        ("GET", "/x/log"),
        ("POST", "/x/cancel"),
        ("GET", "/../builders"),
    ):
        await call(admin, method, path, status, headers=headers)
