"""`enginehouse builder`: one builder process, built in order and closed in reverse."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from pathlib import Path

import uvloop

from engine_builder.build import visible_gpus
from engine_builder.build.builder import Builder
from enginehouse.builder_errors import told
from enginehouse.building import HouseParts, Parts, maker, open_cache
from enginehouse.engine_places import EnginePlaces
from enginehouse.settings import Settings, load
from model_registry.build_jobs.entities import Able
from model_registry.build_jobs.store import BuildStore, Terms
from model_registry.connection import connect
from model_registry.engine_specs import Runtime
from model_registry.store import RegistryStore
from telemetry.logs import Logs

_log = logging.getLogger(__name__)


def run_builder(config: Path | None, *, once: bool, runtime: Runtime | None, cache: Path | None) -> None:
    """Run until SIGTERM or SIGINT, or with `once` until there is no work."""
    settings = load(config).settings
    logs = Logs(settings.telemetry)
    try:
        with told():
            parts = HouseParts(EnginePlaces.of(settings))
            well = uvloop.run(work(settings, parts, once=once, runtime=runtime, cache=cache))
    finally:
        logs.close()
    if once and not well:
        sys.exit(1)


async def work(
    settings: Settings, parts: Parts, *, once: bool, runtime: Runtime | None, cache: Path | None
) -> bool:
    """Take and do builds until SIGTERM or SIGINT; returns whether all went well. Raises BuilderError."""
    config, store = settings.builder, EnginePlaces.of(settings).store
    open_cache(config, cache).close()  # that it can be made shows before any work is taken
    wanted = runtime or config.runtime or parts.runtime()
    gpus = await asyncio.to_thread(visible_gpus) if wanted == "tensorrt-llm" else 0
    able = Able((wanted,), config.gpu_class, gpus)
    redis = connect(settings.registry)
    builds = BuildStore.of(redis, settings.registry, Terms(config.attempts, config.retention_s))
    registry = RegistryStore.of(redis, settings.registry)
    builder = Builder(builds, registry, maker(parts, config, cache, store), able, config)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, builder.end)
    _log.info("builder looks for work", extra={"builder": builder.name, "runtime": wanted, "gpus": gpus})
    try:
        return await builder.run(once=once)
    finally:
        await redis.aclose()
