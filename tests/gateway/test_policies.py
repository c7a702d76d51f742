"""What tenants' policies and the scopes of keys let through, on a real gateway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest
from aiohttp import web

from bench.tally import MODEL, Tally
from enginehouse.gateway_process import GatewayProcess, gateway_process
from enginehouse.settings import Settings
from gateway.app import make_app
from gateway.batch_jobs.config import BatchJobsConfig
from gateway.discovery import Discovery
from model_registry.config import RegistryConfig
from model_registry.demand.demand import GroupDemand
from model_registry.entities import Deployment, Endpoint, Model, Profile, Scaling, ServerRef
from model_registry.pools import DryRunActuator, Pool
from model_registry.snapshot import Stored
from model_registry.store import RegistryStore
from model_registry.tenants import ApiKey, Fallback, FallbackCause, Policy, Tenant
from router.config import RouterConfig
from tenancy.keys import new_key
from tests.enginehouse.test_commands import faults, server
from tests.model_registry.conftest import config, redis_client, redis_server, store, until

__all__ = ["config", "faults", "redis_client", "redis_server", "server", "store"]

TENANTS = ("acme", "other", "plain")
SCOPED = "scoped"
HOUSE_CHAT = Path(__file__).resolve().parents[2] / "emulator" / "models" / "house-chat"
EMPTY = Model(name="empty", context_length=2048)
SHORT = Model(name="short", context_length=4, tokenizer=str(HOUSE_CHAT))


class Gate(NamedTuple):
    """A gateway in this process, and the keys to it."""

    root: str
    keys: dict[str, str]
    process: GatewayProcess

    async def apply(self, store: RegistryStore, *objects: Stored) -> None:
        """Store, and wait until the gateway serves it."""
        version = await store.apply(objects)
        await until(lambda: self.process.snapshot().version >= version)


def fallback(*causes: FallbackCause, to: str = MODEL) -> tuple[Fallback, ...]:
    return (Fallback(causes=causes, to=to),)


@pytest.fixture
async def east() -> AsyncIterator[Tally]:
    async with Tally() as tally:
        yield tally


@pytest.fixture
async def west() -> AsyncIterator[Tally]:
    async with Tally() as tally:
        yield tally


@pytest.fixture
async def gate(
    east: Tally,
    west: Tally,
    store: RegistryStore,
    config: RegistryConfig,
    tmp_path: Path,
) -> AsyncIterator[Gate]:
    """One model in two regions, one model without endpoints, and one with a very short context."""
    made = {name: new_key() for name in (*TENANTS, SCOPED)}
    deployments = [
        Deployment(
            name=region,
            model=MODEL,
            lane="openai-http",
            labels={"region": region},
            servers=(ServerRef(http=tally.url),),
        )
        for region, tally in (("east", east), ("west", west))
    ]
    keys = [ApiKey(name=f"{name}-key", tenant=name, sha256=made[name][1]) for name in TENANTS]
    scoped = ApiKey(
        name=SCOPED, tenant="plain", sha256=made[SCOPED][1], models=("answers",), profiles=("latency",)
    )
    await store.apply(
        [
            Model(name=MODEL, context_length=2048, aliases=("answers",)),
            EMPTY,
            SHORT,
            Policy(name="east-only", selectors={"region": ("east",)}, allowed_models=(MODEL,)),
            Policy(
                name="served",
                allowed_models=("empty", "short"),
                allowed_profiles=("throughput", "night"),
                fallbacks=fallback("no_endpoints", "attempts_exhausted", "context_length"),
            ),
            Profile(name="night"),
            Tenant(name="acme", policy="east-only"),
            Tenant(name="other", policy="served"),
            Tenant(name="plain"),
            *deployments,
            *keys,
            scoped,
        ]
    )
    for deployment in deployments:
        endpoint = Endpoint(
            name=f"{deployment.name}@tally",
            deployment=deployment.name,
            model=MODEL,
            profile="balanced",
            lane="openai-http",
            target=MODEL,
            http=deployment.servers[0].http,
            labels=deployment.labels,
            state="ready",
        )
        await store.register_endpoint(endpoint, ttl_s=600)
    settings = Settings(
        registry=config,
        router=RouterConfig(no_endpoint_timeout_s=0.1),
        batch_jobs=BatchJobsConfig(store_path=tmp_path / "jobs"),
    )
    async with gateway_process(settings) as process:
        discovery = Discovery(process.snapshot, process.readiness, process.metrics)
        app = make_app(process.generation, discovery, [], settings.gateway.limits.max_body_bytes)
        runner = web.AppRunner(app, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        root = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield Gate(root, {name: clear for name, (clear, _) in made.items()}, process)
        await runner.cleanup()


async def ask(gate: Gate, who: str, model: str, said: str = "live", **fields: Any) -> tuple[Any, Any]:
    """The answer or error, and its headers."""
    body = {"model": model, "messages": [{"role": "user", "content": said}], **fields}
    headers = {"Authorization": f"Bearer {gate.keys[who]}"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{gate.root}/v1/chat/completions", json=body, headers=headers) as response,
    ):
        return await response.json(), response


async def refusal(gate: Gate, who: str, model: str, **fields: Any) -> tuple[int, str, str]:
    """Status, code and message."""
    answer, response = await ask(gate, who, model, **fields)
    return response.status, answer["error"]["code"], answer["error"]["message"]


async def shown(gate: Gate, who: str) -> set[str]:
    headers = {"Authorization": f"Bearer {gate.keys[who]}"}
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{gate.root}/v1/models", headers=headers) as response,
    ):
        return {one["id"] for one in (await response.json())["data"]}


async def test_models_and_profiles_are_those_of_policy_and_key(gate: Gate) -> None:
    assert await shown(gate, "acme") == {MODEL, "answers"}
    assert await shown(gate, SCOPED) == {"answers"}
    assert await shown(gate, "plain") == {MODEL, "answers", "empty", "short"}
    assert (await refusal(gate, "acme", "empty"))[:2] == (403, "model_not_allowed")
    assert (await refusal(gate, SCOPED, MODEL))[:2] == (403, "model_not_allowed")
    status, code, message = await refusal(gate, "other", "empty:balanced")
    assert (status, code) == (403, "profile_not_allowed")
    assert "'balanced'" in message
    assert "throughput, night" in message
    answer, _ = await ask(gate, SCOPED, "answers")
    assert answer["choices"][0]["message"]["content"] == "heard live"
    assert (await refusal(gate, SCOPED, "answers:throughput"))[:2] == (403, "profile_not_allowed")
    answer, _ = await ask(gate, "plain", f"{MODEL}:night")
    assert answer["choices"][0]["message"]["content"] == "heard live"


async def test_selectors_keep_a_tenant_to_its_endpoints(
    gate: Gate, store: RegistryStore, east: Tally, west: Tally
) -> None:
    for _ in range(12):
        assert (await ask(gate, "acme", MODEL, "live in the east"))[1].status == 200
    assert (east.asked["live in the east"], west.asked["live in the east"]) == (12, 0)
    for number in range(24):
        assert (await ask(gate, "plain", MODEL, f"live {number}"))[1].status == 200
    assert west.asked.total() > 0
    await gate.apply(store, Policy(name="east-only", selectors={"region": ("north",)}))
    assert (await refusal(gate, "acme", MODEL))[:2] == (503, "no_endpoints")


@pytest.mark.parametrize(
    ("model", "said", "cause"),
    [("empty", "live", "no_endpoints"), ("short", "live and far too long for it", "context_length")],
)
async def test_another_model_answers_and_says_so(gate: Gate, model: str, said: str, cause: str) -> None:
    answer, response = await ask(gate, "other", model, said)
    assert response.status == 200, answer
    assert response.headers["x-enginehouse-fallback"] == f"{model}>{MODEL};{cause}"
    assert answer["model"] == MODEL
    assert answer["choices"][0]["message"]["content"] == f"heard {said}"


async def cold(gate: Gate, store: RegistryStore, **fields: object) -> None:
    """The model `cold` is brought up when somebody asks, and `plain` has another one for it."""
    other = Fallback.model_validate({"causes": ("no_endpoints",), "to": MODEL, **fields})
    await gate.apply(
        store,
        Model(name="cold", context_length=2048),
        Pool(name="p", actuator=DryRunActuator(type="dry-run")),
        Deployment(
            name="cold",
            model="cold",
            lane="openai-http",
            scaling=Scaling(pool="p", min_replicas=0, cold_start_s=20),
        ),
        Tenant(name="plain", fallbacks=(other,)),
    )


async def come_up(store: RegistryStore, server: Tally) -> None:
    up = Endpoint(
        name="cold@e", deployment="cold", model="cold", profile="balanced", lane="openai-http", target=MODEL,
        http=server.url, state="ready",
    )  # fmt: skip
    await store.register_endpoint(up, ttl_s=600)


def demanded(gate: Gate) -> GroupDemand:
    return gate.process.router.demanded().groups.get("cold:balanced", GroupDemand())


async def test_a_fallback_that_is_up_answers_for_a_cold_model_at_once(
    gate: Gate, store: RegistryStore
) -> None:
    """The model that was asked for is wanted all the same."""
    await cold(gate, store)
    answer, response = await ask(gate, "plain", "cold")
    assert response.status == 200, answer
    assert (answer["model"], response.headers["x-enginehouse-fallback"]) == (
        MODEL,
        f"cold>{MODEL};no_endpoints",
    )
    assert "x-enginehouse-cold" not in response.headers
    assert (demanded(gate).arrivals, demanded(gate).held) == (1, 0)


@pytest.mark.parametrize("fields", [{"after_holding": True}, {"to": "empty"}, {"models": ("other",)}])
async def test_a_cold_model_is_waited_for_where_no_fallback_should_answer_at_once(
    gate: Gate, store: RegistryStore, east: Tally, fields: dict[str, object]
) -> None:
    """It says so, is not up itself, or is for other models."""
    await cold(gate, store, **fields)
    asked = asyncio.create_task(ask(gate, "plain", "cold"))
    await until(lambda: demanded(gate).held == 1)
    await come_up(store, east)
    answer, response = await asked
    assert response.status == 200, answer
    assert response.headers["x-enginehouse-cold"] == "1"
    assert "x-enginehouse-fallback" not in response.headers


async def test_a_cold_model_is_waited_for_where_its_fallback_fails(
    gate: Gate, store: RegistryStore, east: Tally, west: Tally
) -> None:
    await cold(gate, store)
    east.status = west.status = 500
    asked = asyncio.create_task(ask(gate, "plain", "cold"))
    await until(lambda: demanded(gate).held == 1)
    east.status = west.status = 200
    await come_up(store, east)
    answer, response = await asked
    assert response.status == 200, answer
    assert response.headers["x-enginehouse-cold"] == "1"
    assert response.headers["x-enginehouse-fallback"] == f"cold>{MODEL};no_endpoints"


async def test_when_the_other_model_fails_too_the_first_error_counts(
    gate: Gate, east: Tally, west: Tally
) -> None:
    east.status = west.status = 500
    answer, response = await ask(gate, "other", "empty")
    assert (response.status, answer["error"]["code"]) == (503, "no_endpoints")
    assert "x-enginehouse-fallback" in response.headers


async def test_what_is_no_cause_is_no_reason_to_fall_back(gate: Gate, east: Tally, west: Tally) -> None:
    answer, response = await ask(gate, "other", "empty", max_tokens=-1)
    assert response.status == 400
    assert answer["error"]["param"] == "max_tokens"
    assert east.asked.total() + west.asked.total() == 0
    assert (await refusal(gate, "plain", "empty"))[:2] == (503, "no_endpoints")


async def test_a_deadline_ends_a_request(gate: Gate, store: RegistryStore, east: Tally, west: Tally) -> None:
    await gate.apply(store, Tenant(name="plain", deadline_s=0.2))
    east.gate.clear()
    west.gate.clear()
    answer, response = await ask(gate, "plain", MODEL)
    assert (response.status, answer["error"]["code"]) == (504, "request_timeout")
    assert "0.2 s" in answer["error"]["message"]
    await until(lambda: east.live + west.live == 0)


async def test_streams_and_other_apis_fall_back_too(gate: Gate, store: RegistryStore, server: str) -> None:
    """A real engine behind an OpenAI-HTTP server."""
    url = server.removesuffix("/v1")
    await gate.apply(
        store,
        Model(name="house-chat", context_length=512),
        Deployment(name="house", model="house-chat", lane="openai-http", servers=(ServerRef(http=url),)),
        Tenant(name="plain", fallbacks=fallback("no_endpoints", to="house-chat")),
    )
    endpoint = Endpoint(
        name="house@e",
        deployment="house",
        model="house-chat",
        profile="balanced",
        lane="openai-http",
        target="house-chat",
        http=url,
        state="ready",
    )
    await store.register_endpoint(endpoint, ttl_s=600)
    await until(lambda: bool(gate.process.snapshot().endpoints.get("house-chat")))
    question = {"messages": [{"role": "user", "content": "What is the capital of France?"}], "model": "empty"}
    headers = {"Authorization": f"Bearer {gate.keys['plain']}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        for path, more, end in (
            ("chat/completions", {}, b"data: [DONE]"),
            ("messages", {"max_tokens": 32}, b'"message_stop"'),
        ):
            body = {**question, "stream": True, "temperature": 0, **more}
            async with session.post(f"{gate.root}/v1/{path}", json=body) as response:
                said = await response.read()
                assert response.status == 200, said
            assert response.headers["x-enginehouse-fallback"] == "empty>house-chat;no_endpoints"
            assert b"Paris" in said
            assert b'"model":"house-chat"' in said.replace(b": ", b":")
            assert end in said
