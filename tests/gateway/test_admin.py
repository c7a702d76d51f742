"""The admin API changes the registry for admins only, whole or not at all, and says what it holds back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, get_args

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from redis.asyncio import Redis

from gateway.admin import admin_routes
from gateway.app import guarded
from model_registry.config import RegistryConfig
from model_registry.entities import Deployment, Endpoint, LaneName, Model, ServerRef
from model_registry.manifests import to_yaml
from model_registry.store import RegistryStore
from model_registry.tenants import ApiKey, Tenant
from model_registry.watcher import Watcher
from tenancy.errors import DisabledKeyError
from tenancy.keys import authenticate, new_key
from tests.model_registry.conftest import RedisServer, config, redis_client, redis_server, store, until

__all__ = ["config", "redis_client", "redis_server", "store"]

ADMIN, ADMIN_HASH = new_key()
USER, USER_HASH = new_key()
MODEL = Model(name="org/chat", context_length=4096)
DEPLOYMENT = Deployment(name="chat-a", model="org/chat", servers=(ServerRef(http="http://a:8000"),))

Admin = TestClient[web.Request, web.Application]


@pytest.fixture
async def watcher(store: RegistryStore, config: RegistryConfig) -> AsyncIterator[Watcher]:
    await store.apply(
        [
            Tenant(name="acme"),
            ApiKey(name="root", tenant="acme", sha256=ADMIN_HASH, admin=True),
            ApiKey(name="app", tenant="acme", sha256=USER_HASH),
        ]
    )
    async with Watcher(store, config=config) as watcher:
        yield watcher


@pytest.fixture
async def admin(store: RegistryStore, watcher: Watcher) -> AsyncIterator[Admin]:
    app = web.Application()
    app.add_routes(guarded(admin_routes(store, watcher)))
    headers = {"Authorization": f"Bearer {ADMIN}"}
    async with TestClient(TestServer(app), headers=headers) as client:
        yield client


async def call(admin: Admin, method: str, path: str, status: int = 200, **kwargs: Any) -> Any:
    async with admin.request(method, f"/admin/v1/{path}", **kwargs) as response:
        answer = await response.json()
        assert response.status == status, answer
        return answer if status < 400 else answer["error"]


async def apply(admin: Admin, text: str, status: int = 200, **fields: Any) -> Any:
    body = {"files": [{"name": "f.yaml", "text": text}], **fields}
    return await call(admin, "POST", "apply", status, json=body)


async def test_applied_manifests_are_served_by_the_time_of_the_answer(admin: Admin, watcher: Watcher) -> None:
    answer = await apply(admin, to_yaml([MODEL, DEPLOYMENT]))
    assert answer == {
        "version": 2,
        "applied": [
            {
                "kind": "Model",
                "name": "org/chat",
                "change": "created",
                "fields": [{"field": "context_length", "before": None, "after": 4096}],
            },
            {
                "kind": "Deployment",
                "name": "chat-a",
                "change": "created",
                "fields": [
                    {"field": "model", "before": None, "after": "org/chat"},
                    {"field": "servers", "before": None, "after": [{"http": "http://a:8000"}]},
                ],
            },
        ],
    }
    assert "org/chat" in watcher.current.models
    again = await apply(admin, to_yaml([MODEL.model_copy(update={"context_length": 1}), DEPLOYMENT]))
    assert [item["change"] for item in again["applied"]] == ["configured", "unchanged"]
    assert [item["fields"] for item in again["applied"]] == [
        [{"field": "context_length", "before": 4096, "after": 1}],
        [],
    ]


async def test_a_dry_run_changes_nothing(admin: Admin, store: RegistryStore) -> None:
    answer = await apply(admin, to_yaml([MODEL]), dry_run=True)
    assert [item["change"] for item in answer["applied"]] == ["created"]
    assert (await store.load()).version == 1


async def test_a_profile_whose_policy_is_unknown_is_refused(admin: Admin, store: RegistryStore) -> None:
    error = await apply(admin, "kind: Profile\nname: chat\npolicy: prodcut\n", 400)
    assert (error["param"], "product" in error["message"]) == ("policy", True)
    profile = "kind: Profile\nname: chat\npolicy: predicted-ttft\npolicy_options: {externality: -1}\n"
    assert "policy_options.externality" in (await apply(admin, profile, 400))["message"]
    assert (await store.load()).version == 1


async def test_mistakes_come_back_with_their_places_and_nothing_is_stored(
    admin: Admin, store: RegistryStore
) -> None:
    error = await apply(
        admin, to_yaml([MODEL]) + "---\nkind: Deployment\nname: d\nmodel: chat\nlane: x\n", 400
    )
    assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_manifest")
    assert error["details"] == [
        {
            "file": "f.yaml",
            "line": 8,
            "field": "servers",
            "message": "give either servers, where it is loaded already, or scaling, which names a pool",
            "allowed": None,
        },
        {
            "file": "f.yaml",
            "line": 11,
            "field": "lane",
            "message": "'x' is not allowed",
            "allowed": [*get_args(LaneName), "auto"],
        },
    ]
    assert "f.yaml:11: lane: 'x' is not allowed (allowed: tensorrt_llm" in error["message"]
    assert (await store.load()).version == 1


@pytest.mark.parametrize("spelling", ["Model", "model", "MODELS", "models"])
async def test_objects_are_read_by_any_spelling_of_their_kind(admin: Admin, spelling: str) -> None:
    await apply(admin, to_yaml([MODEL]))
    listed = await call(admin, "GET", f"objects/{spelling}")
    assert [item["name"] for item in listed["items"]] == ["org/chat"]
    found = await call(admin, "GET", f"objects/{spelling}/org/chat")
    assert found["object"]["context_length"] == 4096
    assert found["manifest"]["spec"] == {"context_length": 4096}
    assert (found["source"], found["version"]) == ("registry", 2)


async def test_what_does_not_exist_is_404(admin: Admin) -> None:
    assert (await call(admin, "GET", "objects/model/x", 404))["code"] == "object_not_found"
    assert (await call(admin, "DELETE", "objects/model/x", 404))["code"] == "object_not_found"
    error = await call(admin, "GET", "objects/pod", 404)
    assert error["code"] == "unknown_kind"
    assert "Deployment" in error["message"]


async def test_what_is_in_use_is_deleted_with_cascade_only(admin: Admin, watcher: Watcher) -> None:
    await apply(admin, to_yaml([MODEL, DEPLOYMENT]))
    assert (await call(admin, "DELETE", "objects/model/org/chat", 409))["code"] == "in_use"
    await call(admin, "DELETE", "objects/model/org/chat?cascade=yes", 400)
    answer = await call(admin, "DELETE", "objects/model/org/chat?cascade=true")
    assert {item["kind"] for item in answer["deleted"]} == {"Model", "Deployment"}
    assert not watcher.current.models


async def test_endpoints_are_read_only(admin: Admin) -> None:
    assert (await call(admin, "DELETE", "objects/endpoints/x", 405))["code"] == "read_only_kind"
    assert (await apply(admin, "kind: Endpoint\nname: e", 400))["details"][0]["field"] == "kind"


async def test_a_new_key_is_shown_once_and_lets_its_holder_in(
    admin: Admin, watcher: Watcher, redis_client: Redis
) -> None:
    answer = await call(admin, "POST", "keys", 201, json={"tenant": "acme", "name": "laptop"})
    identity = authenticate(watcher.current, f"Bearer {answer['key']}")
    assert (identity.tenant.name, identity.key_name, identity.admin) == ("acme", "laptop", False)
    stored = [await redis_client.hgetall("eh:{test}:apikey"), await redis_client.xrange("eh:{test}:changes")]
    assert "laptop" in str(stored)
    assert answer["key"] not in str(stored)
    error = await call(admin, "POST", "keys", 409, json={"tenant": "acme", "name": "laptop"})
    assert error["code"] == "name_taken"
    error = await call(admin, "POST", "keys", 409, json={"tenant": "nobody", "name": "k"})
    assert "Tenant 'nobody'" in error["message"]
    assert (await call(admin, "POST", "keys", 400, json={"tenant": "acme", "name": "a b"}))["param"] == "name"


async def test_keys_from_manifests_arrive_as_hashes(admin: Admin, watcher: Watcher) -> None:
    clear, digest = new_key()
    text = "kind: ApiKey\nname: ci\ntenant: acme\nkeyFromEnv: CI_KEY\n"
    await apply(admin, text, key_hashes={"CI_KEY": digest})
    assert authenticate(watcher.current, f"Bearer {clear}").key_name == "ci"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "apply"),
        ("GET", "objects/models"),
        ("GET", "objects/models/x"),
        ("DELETE", "objects/models/x"),
        ("POST", "keys"),
        ("POST", "keys/app/revoke"),
        ("GET", "history/tenant/acme"),
        ("POST", "rollback"),
        ("GET", "snapshot"),
    ],
)
async def test_every_path_needs_an_admin_key(admin: Admin, method: str, path: str) -> None:
    user = {"Authorization": f"Bearer {USER}"}
    assert (await call(admin, method, path, 403, headers=user))["code"] == "admin_key_required"
    wrong = {"Authorization": "Bearer eh-wrong"}
    assert (await call(admin, method, path, 401, headers=wrong))["code"] == "invalid_api_key"


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'{"files": 5}', b'{"files": [{"name": "x"}]}', b'{"x": 1}', b"\xff", b"[" * 9999],
)
async def test_bodies_that_are_wrong_are_400(admin: Admin, body: bytes) -> None:
    await call(admin, "POST", "apply", 400, data=body)
    await call(admin, "POST", "keys", 400, data=body)


async def test_the_snapshot_tells_what_this_process_serves(admin: Admin, store: RegistryStore) -> None:
    await apply(admin, to_yaml([MODEL, DEPLOYMENT]))
    endpoint = Endpoint(
        name="chat-a@a:8000",
        deployment="chat-a",
        model="org/chat",
        profile="balanced",
        lane="llmapi",
        target="t",
        http="http://a:8000",
        state="unhealthy",
        reason="it is down",
    )
    await store.register_endpoint(endpoint, 60)
    await apply(admin, to_yaml([MODEL.model_copy(update={"description": "later"})]))
    answer = await call(admin, "GET", "snapshot")
    assert answer["version"] == 4
    assert answer["connected"] is True
    assert answer["age_s"] < 5
    assert [(e["name"], e["state"], e["reason"]) for e in answer["endpoints"]] == [
        ("chat-a@a:8000", "unhealthy", "it is down")
    ]


async def test_without_redis_reads_come_from_the_snapshot_and_writes_are_503(
    admin: Admin, redis_server: RedisServer
) -> None:
    await apply(admin, to_yaml([MODEL]))
    redis_server.kill()
    listed = await call(admin, "GET", "objects/models")
    assert listed["source"] == "snapshot"
    assert "away" in listed["note"]
    assert [item["name"] for item in listed["items"]] == ["org/chat"]
    assert (await apply(admin, to_yaml([MODEL]), 503))["code"] == "registry_unavailable"
    await call(admin, "DELETE", "objects/models/org/chat", 503)
    await call(admin, "POST", "keys", 503, json={"tenant": "acme", "name": "k"})
    assert (await call(admin, "GET", "snapshot"))["connected"] is False


async def test_a_read_only_redis_is_named(admin: Admin, redis_client: Redis) -> None:
    await redis_client.replicaof("127.0.0.1", "1")
    assert (await apply(admin, to_yaml([MODEL]), 503))["code"] == "registry_read_only"


async def test_a_write_to_an_emptied_registry_changes_what_is_served(
    admin: Admin, watcher: Watcher, redis_client: Redis, store: RegistryStore
) -> None:
    await apply(admin, to_yaml([MODEL, DEPLOYMENT]))
    await redis_client.flushall()
    await until(lambda: watcher.held_back is not None)
    listed = await call(admin, "GET", "objects/models")
    assert "emptied" in listed["note"]
    dry = await apply(admin, to_yaml([Model(name="new", context_length=1)]), dry_run=True)
    assert [item["change"] for item in dry["applied"]] == ["created"]
    answer = await apply(admin, to_yaml([Model(name="new", context_length=1)]))
    assert answer["version"] > 2
    await until(lambda: watcher.held_back is None)
    assert {"new", "org/chat"} == set(watcher.current.models)
    assert set((await store.load()).tenants) == {"acme"}
    assert authenticate(watcher.current, f"Bearer {ADMIN}").admin


async def test_a_deletion_in_an_emptied_registry_deletes_from_what_is_served(
    admin: Admin, watcher: Watcher, redis_client: Redis
) -> None:
    await apply(admin, to_yaml([MODEL, DEPLOYMENT]))
    await redis_client.flushall()
    await until(lambda: watcher.held_back is not None)
    await call(admin, "DELETE", "objects/deployments/chat-a")
    await until(lambda: watcher.held_back is None)
    assert "org/chat" in watcher.current.models
    assert not watcher.current.deployments


async def test_a_key_that_is_served_is_not_replaced_because_the_registry_was_emptied(
    admin: Admin, watcher: Watcher, redis_client: Redis
) -> None:
    await redis_client.flushall()
    await until(lambda: watcher.held_back is not None)
    await call(admin, "POST", "keys", 409, json={"tenant": "acme", "name": "app"})
    assert authenticate(watcher.current, f"Bearer {USER}").key_name == "app"


async def test_an_earlier_version_comes_back_by_the_rules_for_every_change(
    admin: Admin, watcher: Watcher
) -> None:
    await apply(admin, "kind: Policy\nname: gold\nweight: 2\n")
    await apply(admin, "kind: Policy\nname: gold\nweight: 3\n---\nkind: Tenant\nname: acme\npolicy: gold\n")
    told = await call(admin, "GET", "history/policy/gold")
    assert [(one["version"], one["fields"][0]["after"]) for one in told["versions"]] == [(2, 2), (3, 3)]
    assert told["versions"][0]["manifest"]["spec"] == {"weight": 2}
    body = {"kind": "policy", "name": "gold"}
    dry = await call(admin, "POST", "rollback", json={**body, "dry_run": True})
    assert dry["applied"][0]["fields"] == [{"field": "weight", "before": 3, "after": 2}]
    assert watcher.current.policies["gold"].weight == 3
    await call(admin, "POST", "rollback", json=body)
    assert watcher.current.policies["gold"].weight == 2
    await call(admin, "POST", "rollback", json={**body, "to": 3})
    assert watcher.current.policies["gold"].weight == 3
    error = await call(admin, "POST", "rollback", 404, json={**body, "to": 99})
    assert error["code"] == "version_not_found"
    assert "there are: 2, 3, 4, 5" in error["message"]
    await call(admin, "POST", "rollback", json={"kind": "tenant", "name": "acme"})
    await call(admin, "DELETE", "objects/policy/gold")
    error = await call(admin, "POST", "rollback", 409, json={"kind": "tenant", "name": "acme"})
    assert error["code"] == "dangling_reference"
    await call(admin, "POST", "rollback", json=body)
    assert watcher.current.policies["gold"].weight == 3
    assert (await call(admin, "GET", "history/policy/none", 404))["code"] == "object_not_found"


async def test_a_rollback_takes_no_server_from_the_pool_that_has_it_now(admin: Admin) -> None:
    text = "kind: Pool\nname: {}\nactuator: {{type: triton, servers: [{{http: 'http://{}'}}]}}\n"
    await apply(admin, text.format("a", "one"))
    await apply(admin, "---\n".join((text.format("a", "two"), text.format("b", "one"))))
    error = await call(admin, "POST", "rollback", 409, json={"kind": "pool", "name": "a"})
    assert error["code"] == "pool_conflict"
    assert "Pool 'a': actuator.servers[0].http: http://one is a server of pool 'b', too" in error["message"]


async def test_a_revoked_key_never_lets_anybody_in_again(admin: Admin, watcher: Watcher) -> None:
    created = {"tenant": "acme", "name": "k", "models": ["org/chat"], "expires_at": "2100-01-01T00:00:00Z"}
    made = await call(admin, "POST", "keys", 201, json=created)
    identity = authenticate(watcher.current, f"Bearer {made['key']}")
    assert identity.policy.models == (("org/chat",),)
    assert identity.expires_s == 4102444800
    assert (await call(admin, "POST", "keys/k/revoke", json={}))["revoked"]
    with pytest.raises(DisabledKeyError):
        authenticate(watcher.current, f"Bearer {made['key']}")
    rollback = await call(admin, "POST", "rollback", 409, json={"kind": "apikey", "name": "k"})
    assert rollback["code"] == "key_revoked"
    digest = next(one.sha256 for one in watcher.current.keys.values() if one.name == "k")
    again = f"kind: ApiKey\nname: k\ntenant: acme\nsha256: {digest}\n"
    assert (await apply(admin, again, 409))["code"] == "key_revoked"
    await call(admin, "DELETE", "objects/apikey/k")
    gone = await call(admin, "POST", "rollback", 404, json={"kind": "apikey", "name": "k"})
    assert gone["code"] == "version_not_found"
    assert (await call(admin, "POST", "keys/k/revoke", 404, json={}))["code"] == "object_not_found"
    naive = {"tenant": "acme", "name": "n", "expires_at": "2100-01-01T00:00:00"}
    assert (await call(admin, "POST", "keys", 400, json=naive))["param"] == "expires_at"
