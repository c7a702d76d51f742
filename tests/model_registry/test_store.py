"""The store changes everything or nothing, by the rules, and says which version that made."""

from __future__ import annotations

import asyncio
import datetime

import pytest
from redis.asyncio import Redis

from model_registry.config import RegistryConfig
from model_registry.drains import Drain
from model_registry.engine_specs import EngineSpec
from model_registry.engines import Engine
from model_registry.entities import Adapter, Deployment, Endpoint, EndpointState, Model, Profile, ServerRef
from model_registry.errors import (
    DanglingReferenceError,
    IllegalTransitionError,
    InUseError,
    LeadershipLostError,
    NameTakenError,
    UnknownObjectError,
)
from model_registry.keys import CATALOGUE, Keys
from model_registry.pools import Pool
from model_registry.replicas import Replica, ScalingStatus
from model_registry.rollouts import Rollout, RolloutStatus
from model_registry.snapshot import Stored
from model_registry.states import ENDPOINT as TRANSITIONS
from model_registry.store import RegistryStore
from model_registry.tenants import ApiKey, Policy, Tenant
from tests.model_registry.conftest import RedisServer, eventually

MODEL = Model(name="chat", context_length=4096, aliases=("gpt",))
DEPLOYMENT = Deployment(name="chat-a", model="chat", servers=(ServerRef(http="http://a:8000"),))
ADAPTER = Adapter(name="pirate", model="chat", aliases=("buccaneer",))
TENANT = Tenant(name="acme")
KEY = ApiKey(name="laptop", tenant="acme", sha256="ab" * 32)
ENDPOINT = Endpoint(
    name="chat-a@a:8000",
    deployment="chat-a",
    model="chat",
    profile="balanced",
    lane="tensorrt_llm",
    target="tensorrt_llm",
    http="http://a:8000",
    server_schema={"empty": [], "nothing": {}, "numbers": [1, 2.5, 2**60]},
)

SPEC = EngineSpec(name="chat-fp8", checkpoint="/checkpoints/chat", gpu_class="h100-sxm")
ENGINE = Engine(
    name="chat-fp8-0123456789ab",
    spec="chat-fp8",
    digest="0" * 64,
    lane="trt-engine",
    runtime="emulated",
    version="1.2.1",
    gpu_class="h100-sxm",
    precision="fp8",
    url="/engines/chat-fp8-0123456789ab",
    manifest_sha256="0" * 64,
    built_at=datetime.datetime(2026, 11, 29, tzinfo=datetime.UTC),
)


async def test_what_is_stored_is_read_back_the_same(store: RegistryStore) -> None:
    await store.apply([MODEL, DEPLOYMENT, TENANT, KEY])
    await store.register_endpoint(ENDPOINT, 60)
    assert await store.get("Deployment", "chat-a") == DEPLOYMENT
    assert await store.list("ApiKey") == [KEY]
    assert await store.list("Endpoint") == [ENDPOINT]
    assert await store.get("Model", "nobody") is None
    assert (await store.load()).tenants == {"acme": TENANT}


async def test_a_change_is_one_version_however_many_objects(store: RegistryStore) -> None:
    assert await store.apply([MODEL, DEPLOYMENT, TENANT, KEY]) == 1
    applied = await store.transact([MODEL, TENANT.model_copy(update={"weight": 2.0}), Tenant(name="new")])
    assert applied.version == 2
    assert [outcome for _, outcome in applied.outcomes] == ["unchanged", "configured", "created"]


async def test_what_changes_nothing_makes_no_version(store: RegistryStore) -> None:
    await store.apply([MODEL])
    assert await store.apply([MODEL]) == 1


async def test_a_dry_run_checks_and_changes_nothing(store: RegistryStore) -> None:
    applied = await store.transact([MODEL], dry_run=True)
    assert applied.outcomes == ((("Model", "chat"), "created"),)
    assert (await store.load()).version == 0
    with pytest.raises(DanglingReferenceError):
        await store.transact([DEPLOYMENT], dry_run=True)


async def test_a_model_keeps_the_time_at_which_it_was_first_stored(store: RegistryStore) -> None:
    await store.apply([MODEL])
    first = await store.get("Model", "chat")
    assert isinstance(first, Model)
    assert first.created > 1_700_000_000
    await store.apply([MODEL.model_copy(update={"created": 5, "description": "new"})])
    second = await store.get("Model", "chat")
    assert isinstance(second, Model)
    assert (second.created, second.description) == (first.created, "new")


@pytest.mark.parametrize(
    ("objects", "error"),
    [
        ([MODEL, DEPLOYMENT, KEY], DanglingReferenceError),
        ([TENANT, DEPLOYMENT], DanglingReferenceError),
        ([MODEL, Model(name="gpt", context_length=1)], NameTakenError),
        ([ADAPTER], DanglingReferenceError),
        ([MODEL, ADAPTER.model_copy(update={"aliases": ("gpt",)})], NameTakenError),
        ([TENANT, KEY, KEY.model_copy(update={"name": "other"})], NameTakenError),
    ],
)
async def test_one_wrong_object_keeps_all_out(
    store: RegistryStore, objects: list[Stored], error: type[Exception]
) -> None:
    with pytest.raises(error):
        await store.apply(objects)
    assert (await store.load()).version == 0


async def test_what_is_in_use_is_deleted_only_by_cascade(store: RegistryStore) -> None:
    await store.apply([MODEL, DEPLOYMENT, TENANT, KEY])
    with pytest.raises(InUseError, match="used by Deployment 'chat-a'"):
        await store.delete("Model", "chat")
    with pytest.raises(InUseError, match="ApiKey 'laptop'"):
        await store.delete("Tenant", "acme")
    await store.delete("Model", "chat", cascade=True)
    assert (await store.load()).deployments == {}
    await store.apply([], delete=[("Tenant", "acme"), ("ApiKey", "laptop")])
    assert (await store.load()).tenants == {}


async def test_an_adapter_is_dated_and_goes_with_its_model(store: RegistryStore) -> None:
    await store.apply([MODEL, ADAPTER])
    snapshot = await store.load()
    dated = snapshot.adapters["chat+pirate"]
    assert dated.created > 1_700_000_000
    assert snapshot.adapter("gpt+pirate") == snapshot.adapter("buccaneer") == dated
    assert (await store.transact([ADAPTER])).outcomes == ((("Adapter", "pirate"), "unchanged"),)
    with pytest.raises(InUseError, match="used by Adapter 'pirate'"):
        await store.delete("Model", "chat")
    await store.delete("Model", "chat", cascade=True)
    assert (await store.load()).adapters == {}


async def test_deleting_nothing_is_an_error(store: RegistryStore) -> None:
    with pytest.raises(UnknownObjectError, match="no Model named 'chat'"):
        await store.delete("Model", "chat")


async def test_concurrent_changes_are_all_kept(store: RegistryStore) -> None:
    await store.apply([MODEL])
    await asyncio.gather(*(store.apply([Model(name=f"m{n}", context_length=1)]) for n in range(12)))
    snapshot = await store.load()
    assert len(snapshot.models) == 13
    assert snapshot.version == 13


async def test_a_deletion_and_a_use_at_once_never_leave_a_dangling_reference(store: RegistryStore) -> None:
    for _ in range(10):
        await store.apply([MODEL])
        await asyncio.gather(store.delete("Model", "chat"), store.apply([DEPLOYMENT]), return_exceptions=True)
        snapshot = await store.load()
        assert ("chat" in snapshot.models) == ("chat" in snapshot.deployments)
        if snapshot.models:
            await store.delete("Model", "chat", cascade=True)


async def test_an_endpoint_needs_its_deployment(store: RegistryStore) -> None:
    with pytest.raises(UnknownObjectError, match="no Deployment named 'chat-a'"):
        await store.register_endpoint(ENDPOINT, 60)


STATES = list(TRANSITIONS)


@pytest.mark.parametrize("present", [s for s in STATES if s != "gone"])
@pytest.mark.parametrize("wanted", STATES)
async def test_endpoints_move_by_the_table_only(
    store: RegistryStore, present: EndpointState, wanted: EndpointState
) -> None:
    await store.apply([MODEL, DEPLOYMENT])
    await store.register_endpoint(ENDPOINT.model_copy(update={"state": present}), 60)
    if wanted == present or wanted in TRANSITIONS[present]:
        await store.set_endpoint_state(ENDPOINT.name, wanted, "because")
        stored = await store.get("Endpoint", ENDPOINT.name)
        if wanted == "gone":
            assert stored is None
        else:
            assert isinstance(stored, Endpoint)
            assert (stored.state, stored.reason) == (wanted, "because")
            assert stored.server_schema == ENDPOINT.server_schema
    else:
        with pytest.raises(IllegalTransitionError, match=f"from '{present}' to '{wanted}'; allowed"):
            await store.set_endpoint_state(ENDPOINT.name, wanted)


async def test_an_endpoint_nobody_renews_is_swept_by_redis_time(store: RegistryStore) -> None:
    await store.apply([MODEL, DEPLOYMENT])
    other = ENDPOINT.model_copy(update={"name": "chat-a@b:8000"})
    await store.register_endpoint(ENDPOINT, 0.05)
    await store.register_endpoint(other, 0.05)
    assert await store.sweep() == []
    renewal = await store.renew([ENDPOINT.name, "never-registered"], 60)
    assert renewal.missing == ("never-registered",)
    assert await eventually(store.sweep) == [other.name]
    assert await store.list("Endpoint") == [ENDPOINT]


async def test_a_redis_that_stood_still_sweeps_nothing_renewed_before(
    store: RegistryStore, redis_client: Redis
) -> None:
    """Redis time may run on between a renewal and the sweep that follows it."""
    await store.apply([MODEL, DEPLOYMENT])
    await store.register_endpoint(ENDPOINT, 60)
    renewal = await store.renew([ENDPOINT.name], 0.05)

    async def lapsed() -> bool:
        seconds, micros = await redis_client.time()
        return seconds * 1000 + micros // 1000 > renewal.as_of_ms + 50

    await eventually(lapsed)
    assert await store.sweep(as_of_ms=renewal.as_of_ms) == []
    assert await store.sweep() == [ENDPOINT.name]


async def test_of_many_controllers_one_leads(store: RegistryStore) -> None:
    claims = await asyncio.gather(*(store.claim_leadership(f"c{n}", 60) for n in range(8)))
    leading = [claim for claim in claims if claim is not None]
    assert len(leading) == 1
    again = await store.claim_leadership(leading[0].holder, 60)
    assert again == leading[0]
    assert await store.resign_leadership(leading[0])
    successor = await store.claim_leadership("next", 60)
    assert successor is not None
    assert successor.token > leading[0].token


async def test_a_lapsed_leader_cannot_write_any_more(store: RegistryStore, redis_client: Redis) -> None:
    await store.apply([MODEL, DEPLOYMENT])
    old = await store.claim_leadership("old", 0.01)
    assert old is not None
    await eventually(lambda: store.claim_leadership("new", 60))
    for write in (
        store.register_endpoint(ENDPOINT, 60, leadership=old),
        store.renew(["x"], 60, leadership=old),
        store.sweep(leadership=old),
    ):
        with pytest.raises(LeadershipLostError):
            await write
    await redis_client.flushall()
    with pytest.raises(LeadershipLostError):
        await store.sweep(leadership=old)


async def test_the_last_versions_of_an_object_are_kept(redis_client: Redis, config: RegistryConfig) -> None:
    store = RegistryStore.of(redis_client, config.model_copy(update={"max_versions": 3}))
    for weight in (1.0, 2.0, 2.0, 3.0):
        await store.apply([Tenant(name="acme", weight=weight)])
    await store.delete("Tenant", "acme")
    kept = await store.history("Tenant", "acme")
    assert [(one.version, one.item) for one in kept] == [
        (2, Tenant(name="acme", weight=2.0)),
        (3, Tenant(name="acme", weight=3.0)),
        (4, None),
    ]
    assert all(one.at_ms for one in kept)
    assert await store.history("Tenant", "nobody") == ()


async def test_what_was_there_before_its_history_was_kept_comes_first_in_it(
    store: RegistryStore, redis_client: Redis
) -> None:
    await store.apply([TENANT])
    await redis_client.delete("eh:{test}:history")
    await store.apply([Tenant(name="acme", weight=2.0)])
    first, second = await store.history("Tenant", "acme")
    assert (first.version, first.at_ms, first.item) == (1, None, TENANT)
    assert second.version == 2


async def test_endpoints_and_deleted_keys_have_no_history(store: RegistryStore) -> None:
    await store.apply([MODEL, DEPLOYMENT, TENANT, KEY])
    await store.register_endpoint(ENDPOINT, 60)
    assert await store.history("Endpoint", ENDPOINT.name) == ()
    assert len(await store.history("ApiKey", KEY.name)) == 1
    await store.delete("ApiKey", KEY.name)
    assert await store.history("ApiKey", KEY.name) == ()


async def test_a_cascade_takes_what_needs_what_goes_too(store: RegistryStore) -> None:
    await store.apply([Policy(name="gold"), Tenant(name="acme", policy="gold"), KEY])
    with pytest.raises(InUseError, match="Tenant 'acme'"):
        await store.delete("Policy", "gold")
    applied = await store.transact((), delete=[("Policy", "gold")], cascade=True)
    assert {ref for ref, _ in applied.outcomes} == {
        ("Policy", "gold"),
        ("Tenant", "acme"),
        ("ApiKey", "laptop"),
    }


async def test_every_key_in_redis_is_in_the_catalogue(store: RegistryStore, redis_client: Redis) -> None:
    operators = [Policy(name="gold"), Profile(name="night"), MODEL, ADAPTER, DEPLOYMENT, TENANT, KEY]
    other = DEPLOYMENT.model_copy(update={"name": "other"})
    names = {"name": "r", "model": DEPLOYMENT.model, "stable": DEPLOYMENT.name, "candidate": "other"}
    await store.apply([*operators, SPEC, ENGINE, other, Rollout(**names), RolloutStatus(**names)])
    placed = {"model": DEPLOYMENT.model, "pool": "p"}
    pool = Pool.model_validate({"name": "p", "actuator": {"type": "dry-run"}})
    await store.apply(
        [
            pool,
            Replica(name="d.1", deployment="d", **placed),
            ScalingStatus(name="d", **placed),
            Drain(name="s", server="http://a:1"),
        ]
    )
    await store.register_endpoint(ENDPOINT, 60)
    await store.claim_leadership("c", 60)
    keys = Keys("test")
    found = [key async for key in redis_client.scan_iter()]
    for key in found:
        row = keys.spec(key)
        assert row is not None, f"{key} is not in the catalogue"
        assert await redis_client.type(key) == row.type
        assert await redis_client.ttl(key) == -1
    assert {keys.of(row.suffix) for row in CATALOGUE} == set(found)


async def test_all_keys_share_one_cluster_slot(redis_client: Redis) -> None:
    tags = {key[key.index("{") + 1 : key.index("}")] for key in Keys("test").all}
    assert tags == {"test"}


async def test_the_change_stream_is_capped(redis_client: Redis) -> None:
    store = RegistryStore(redis_client, "test", max_changes=100)
    for n in range(400):
        await store.apply([Tenant(name="t", weight=n + 1)])
    assert await redis_client.xlen("eh:{test}:changes") < 300


async def test_two_registries_share_a_redis_unseen(redis_client: Redis) -> None:
    one, other = RegistryStore(redis_client, "one"), RegistryStore(redis_client, "other")
    await one.apply([MODEL])
    assert (await other.load()).version == 0


async def test_documents_of_a_newer_release_are_read_without_what_is_new(
    store: RegistryStore, redis_client: Redis
) -> None:
    await store.apply([MODEL])
    newer = '{"name":"next","context_length":8,"modalities":["text"]}'
    await redis_client.hset("eh:{test}:model", "next", newer)
    await redis_client.hset("eh:{test}:model", "odd", '{"name":"odd"}')
    assert list((await store.load()).models) == ["chat", "next"]


async def test_scripts_survive_a_restart_that_forgot_them(
    redis_server: RedisServer, store: RegistryStore, config: RegistryConfig
) -> None:
    await store.apply([MODEL])
    redis_server.kill()
    redis_server.start()
    assert await store.apply([TENANT]) == 2
    assert (await store.load()).models["chat"].context_length == 4096


async def test_a_client_that_does_not_decode_is_refused(redis_server: RedisServer) -> None:
    client = Redis(port=redis_server.port)
    with pytest.raises(ValueError, match="decode_responses=True"):
        RegistryStore(client)
    await client.aclose()
