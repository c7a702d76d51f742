"""What clients see of admission at a real gateway: status, body and `Retry-After` (docs/queueing.md)."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
from redis.asyncio import Redis

from model_registry.cards import GoodputCard
from model_registry.config import RegistryConfig
from model_registry.entities import Deployment, Model, Profile, ServerRef
from model_registry.store import RegistryStore
from model_registry.tenants import Tenant
from tests.enginehouse.fleet import CountingServer, Fleet, fleet
from tests.model_registry.conftest import config, eventually, redis_client, redis_server

__all__ = ["config", "redis_client", "redis_server"]

PREFILL_TOKENS_PER_S = 100
SLOW = GoodputCard(
    source="measured",
    gpu_class="cpu",
    date=datetime.date(2026, 11, 28),
    prefill_tokens_per_s=PREFILL_TOKENS_PER_S,
    overhead_s=0.01,
    step_s=0.01,
    slots=4,
)
PROFILES = (
    Profile(name="narrow", queue_limit=1),
    Profile(name="impatient", max_wait_s=0.5),
    Profile(name="strict", refuse_late=True, ttft_target_s=0.5),
)
NOWHERE = (
    Model(name="absent", context_length=2048),
    Deployment(
        name="absent", model="absent", lane="openai-http", servers=(ServerRef(http="http://nowhere:9"),)
    ),
)


@asynccontextmanager
async def house(
    config: RegistryConfig, redis: Redis, folder: Path, slots: int, card: GoodputCard | None = None
) -> AsyncIterator[tuple[CountingServer, Fleet]]:
    """One gateway of one worker before a server that answers after 2 s, with the profiles above."""
    server = CountingServer()
    server.takes_s = 2.0
    settings = {"ENGINEHOUSE_ROUTER__NO_ENDPOINT_TIMEOUT_S": "0.3"}
    async with (
        server.listening() as url,
        fleet(
            config, redis, url, folder, Tenant(name="t", concurrency=9),
            gateways=1, workers=1, slots=slots, card=card, **settings,
        ) as gateways,
    ):  # fmt: skip
        await RegistryStore.of(redis, config).apply([*PROFILES, *NOWHERE])

        async def known() -> bool:
            refused = await gateways.ask(model="absent")
            return refused.status == 503

        await eventually(known)
        yield server, gateways


async def busy(server: CountingServer) -> bool:
    """Whether a request has reached it."""
    return server.in_flight > 0


async def shows(gateways: Fleet, *samples: str) -> bool:
    """Whether the metrics page has all of these."""
    async with gateways.session.get(f"http://127.0.0.1:{gateways.ports[0]}/metrics") as response:
        page = await response.text()
    return all(f"\nenginehouse_{sample}" in page for sample in samples)


async def refusal(answer: aiohttp.ClientResponse) -> tuple[int, str, str, str | None]:
    """Status, code, type and `Retry-After` of an answer in OpenAI's error shape."""
    error: dict[str, Any] = (await answer.json())["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["message"].endswith(".")
    return answer.status, error["code"], error["type"], answer.headers.get("Retry-After")


async def test_what_waits_too_long_or_finds_the_queue_full_gets_429(
    config: RegistryConfig, redis_client: Redis, tmp_path: Path
) -> None:
    """With all slots taken, as metrics show; who got one is answered, and so is who waited within bounds."""
    async with house(config, redis_client, tmp_path, slots=1) as (server, gateways):
        running = asyncio.create_task(gateways.ask(model="m:impatient"))
        await eventually(partial(busy, server))
        waiting = asyncio.create_task(gateways.ask(model="m:narrow"))
        await eventually(
            partial(
                shows,
                gateways,
                'queued_requests{model="m",profile="narrow"} 1.0',
                'slots_leased{endpoint="d@engine",worker="0"} 1.0',
                'slots_used{endpoint="d@engine",worker="0"} 1.0',
                'slots_wanted{endpoint="d@engine",worker="0"} 1.0',
                'limit_leased{limit="concurrency",tenant="t"} ',
                'limit_used{limit="concurrency",tenant="t"} 2.0',
                "slices_confirmed 1.0",
            )
        )
        full = await refusal(await gateways.ask(model="m:narrow"))
        late = await refusal(await gateways.ask(model="m:impatient"))
        assert (full[:3], late[:3]) == (
            (429, "queue_full", "rate_limit_error"),
            (429, "queue_timeout", "rate_limit_error"),
        )
        for retry_after in (full[3], late[3]):
            assert retry_after is not None
            assert 1 <= int(retry_after) <= 600
        assert (await running).status == (await waiting).status == 200
        assert server.most == 1


async def test_what_would_be_late_is_told_when_it_would_not_be(
    config: RegistryConfig, redis_client: Redis, tmp_path: Path
) -> None:
    """By the endpoint's card: behind a long prompt a short one misses its target. Others wait and get it."""
    async with house(config, redis_client, tmp_path, slots=4, card=SLOW) as (server, gateways):
        long = [{"role": "user", "content": "coal and water " * 200}]
        running = asyncio.create_task(gateways.ask(model="m:balanced", messages=long))
        await eventually(partial(busy, server))
        status, code, kind, retry_after = await refusal(await gateways.ask(model="m:strict"))
        assert (status, code, kind) == (429, "predicted_late", "rate_limit_error")
        assert retry_after is not None
        assert 2 <= int(retry_after) <= len(long[0]["content"]) / PREFILL_TOKENS_PER_S
        assert (await gateways.ask(model="m:balanced")).status == 200
        assert (await running).status == 200
        assert (await gateways.ask(model="m:strict")).status == 200, "an idle engine is never late by load"


async def test_a_model_without_an_endpoint_is_503(
    config: RegistryConfig, redis_client: Redis, tmp_path: Path
) -> None:
    """There is no capacity, so it is no 429; within the time that a request waits for one."""
    async with house(config, redis_client, tmp_path, slots=1) as (server, gateways):
        began_s = asyncio.get_running_loop().time()
        found = await refusal(await gateways.ask(model="absent"))
        assert found == (503, "no_endpoints", "server_error", "5")
        streamed = await gateways.ask(model="absent", stream=True)
        assert streamed.content_type == "application/json", "nothing has begun that could be a stream"
        assert await refusal(streamed) == found
        assert 0.6 <= asyncio.get_running_loop().time() - began_s < 4
        assert server.most == 0
