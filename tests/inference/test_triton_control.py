"""A real Triton is looked at and told to load and unload; what is no Triton is recognised."""

from __future__ import annotations

from dataclasses import replace

from aiohttp import web

from inference.control import TritonControl, health
from inference.introspection import introspect
from inference.schema import Schema
from model_registry.entities import ServerRef
from tests.inference.speaking import (
    Speaker,
)


async def test_control_sees_the_server(triton: ServerRef) -> None:
    async with TritonControl(triton) as control:
        assert await control.live()
        assert {"ids", "text", "words"} <= {state.name for state in await control.index(ready_only=True)}
        statistics = await control.statistics("ids")
        assert statistics["model_stats"][0]["name"] == "ids"
        gauges = await control.engine_metrics("ids")
        assert gauges["nv_trt_llm_kv_cache_block_metrics"]["tokens_per"] == 32


async def test_health_of_nothing_is_false() -> None:
    assert not await health(ServerRef(http="http://127.0.0.1:9"), "m", "tensorrt_llm")
    assert not await health(ServerRef(http="http://127.0.0.1:9"), "m", "openai-http")


async def test_an_openai_server_is_recognised_by_what_it_answers() -> None:
    """A server without Triton's API, even one that asks for a key."""

    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"error": "key"}, status=401)

    app = web.Application()
    app.router.add_get("/v1/models", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    server = ServerRef(http=f"http://127.0.0.1:{port}")
    schema = await introspect(server, "m")
    assert replace(schema, max_concurrency=None) == Schema(lane="openai-http", target="m")
    assert await health(server, "m", "openai-http")
    await runner.cleanup()


async def test_models_come_and_go(speaker: Speaker) -> None:
    async with TritonControl(speaker.server) as control:
        await control.unload("old_script")
        assert not await control.model_ready("old_script")
        assert not await health(speaker.server, "old_script", "tensorrt_llm_bls")
        await control.load("old_script")
    assert await health(speaker.server, "old_script", "tensorrt_llm_bls")
    assert (await speaker.ask("old_script", "http")).error is None
