"""`enginehouse controller`: one controller process, built in order and closed in reverse."""

from __future__ import annotations

import asyncio
import signal
from functools import partial
from pathlib import Path

import aiohttp
import uvloop

from controller.probing import Probing
from controller.rollouts.run import Rollouts
from controller.run import Controller
from enginehouse.settings import Settings, load
from inference.control import health
from inference.introspection import introspect
from inference.probe import probe_inference
from model_registry.connection import connect
from model_registry.demand.store import DemandStore
from model_registry.rollout_evidence.store import EvidenceStore
from model_registry.store import RegistryStore
from model_registry.watcher import Watcher
from telemetry.lifecycle import Supervisor
from telemetry.logs import Logs


def run_controller(config: Path | None) -> None:
    """Run until SIGTERM or SIGINT."""
    settings = load(config).settings
    logs = Logs(settings.telemetry)
    try:
        uvloop.run(_run(settings))
    finally:
        logs.close()


async def _run(settings: Settings) -> None:
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    redis = connect(settings.registry)
    store = RegistryStore.of(redis, settings.registry)
    session = aiohttp.ClientSession()
    controller = Controller(
        store,
        partial(introspect, session=session),
        partial(health, session=session),
        settings.controller,
        settings.registry.endpoint_ttl_s,
        Rollouts(store, EvidenceStore.of(redis, settings.registry)),
        Probing(probe_inference, settings.controller, DemandStore.of(redis, settings.registry).gather),
    )
    watcher = Watcher(store, on_change=controller.registry_changed, config=settings.registry)
    supervisor = Supervisor()
    try:
        await watcher.start()
        supervisor.start("controller", controller.run, restart_after_s=1.0)
        await ended.wait()
    finally:
        await supervisor.close()
        await watcher.close()
        await session.close()
        await redis.aclose()
