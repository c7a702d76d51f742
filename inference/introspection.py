"""Introspection: asks a model server what a deployment's target is, and picks the lane to speak.

Run by the controller when an endpoint appears or comes back; its result is stored with the endpoint.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import aiohttp

from inference.control import TritonControl
from inference.errors import InferenceError, SchemaError, ServerUnreachableError
from inference.schema import Schema, emulates, guides, is_true, parameter, recognise
from model_registry.entities import LaneName, ServerRef

_REQUESTS = "nv_trt_llm_request_metrics"
_BLOCKS = "nv_trt_llm_kv_cache_block_metrics"


async def introspect(
    server: ServerRef,
    target: str,
    lane: LaneName | str = "auto",
    session: aiohttp.ClientSession | None = None,
) -> Schema:
    """The schema by which `target` on `server` is to be called.

    `auto` prefers the bare `tensorrt_llm` behind an ensemble or BLS when that is ready, and takes a server
    without Triton's API for an OpenAI-HTTP one.

    Raises SchemaError when `target` is not what `lane` says or of no known schema, and InferenceError when
    the server cannot be asked.
    """
    async with TritonControl(server, session) as control:
        if lane == "openai-http":
            return await _openai(control, target)
        if lane == "auto" and not await control.live():
            return await _openai_or_nothing(control, server, target)
        schema = recognise(await control.metadata(target), await control.config(target))
        if lane not in {"auto", schema.lane}:
            raise SchemaError(
                f"deployment says lane {lane}, but {target!r} on {server.http} is {schema.lane}: "
                "correct `lane`, or leave it out to have it recognised"
            )
        if lane == "auto" and schema.bare_target is not None:
            schema = await _bare_behind(control, schema) or schema
        return await _with_server_facts(control, schema)


async def _openai_or_nothing(control: TritonControl, server: ServerRef, target: str) -> Schema:
    if await control.lists_openai_models():
        return await _openai(control, target)
    raise ServerUnreachableError(
        f"{server.http} answers neither /v2/health/live nor /v1/models: is a model server running there?"
    )


async def _openai(control: TritonControl, target: str) -> Schema:
    return Schema(lane="openai-http", target=target, emulated=await control.is_openai_emulator())


async def _bare_behind(control: TritonControl, schema: Schema) -> Schema | None:
    """The bare model's schema, or None when it is not there, not ready or not a bare one."""
    bare = schema.bare_target
    if bare is None or not await control.model_ready(bare):
        return None
    try:
        found = recognise(await control.metadata(bare), await control.config(bare))
    except (InferenceError, SchemaError):
        return None  # the text model works without it
    return found if found.lane == "tensorrt_llm" else None


async def _with_server_facts(control: TritonControl, schema: Schema) -> Schema:
    """What other models and the metrics of the server tell about this one."""
    if schema.preprocessing_target is not None:
        adds = await _adds_special_tokens(control, schema.preprocessing_target)
        schema = replace(schema, adds_special_tokens=adds)
    if schema.bare_target is not None:
        bare = await _config(control, schema.bare_target)
        schema = replace(schema, guided_decoding=guides(bare), emulated=emulates(bare))
    try:
        metrics = await control.engine_metrics(schema.bare_target or schema.target)
    except InferenceError:
        return schema  # serving does not depend on the metrics port
    slots = metrics.get(_REQUESTS, {}).get("max")
    block = metrics.get(_BLOCKS, {}).get("tokens_per")
    blocks = metrics.get(_BLOCKS, {}).get("max")
    reserves = bool(block and blocks) and await _reserves(control, schema.bare_target or schema.target)
    return replace(
        schema,
        max_concurrency=int(slots) if slots else None,
        tokens_per_block=int(block) if block else None,
        kv_tokens=int(blocks * block) if block and blocks and reserves else None,
    )


async def _reserves(control: TritonControl, bare: str) -> bool:
    """Whether the engine starts a request only when its longest answer fits into the KV cache."""
    try:
        stated = parameter(await control.config(bare), "batch_scheduler_policy")
    except InferenceError:
        return False
    return stated == "guaranteed_no_evict"


async def _config(control: TritonControl, bare: str) -> dict[str, Any]:
    """The configuration of the engine behind a text model; an empty one, where it cannot be asked."""
    try:
        return await control.config(bare)
    except InferenceError:
        return {}


async def _adds_special_tokens(control: TritonControl, preprocessing: str) -> bool:
    """Its parameter; true unless it says otherwise, as in the model itself."""
    try:
        stated = parameter(await control.config(preprocessing), "add_special_tokens")
    except InferenceError:
        return True  # a BLS model need not have such a step
    return stated is None or is_true(stated)
