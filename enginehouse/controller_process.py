"""`enginehouse controller`: one controller process, built in order and closed in reverse."""

from __future__ import annotations

import asyncio
import os
import signal
from functools import partial
from pathlib import Path

import aiohttp
import uvloop

from controller.actuators.catalogue import Surroundings, actuator_of
from controller.metrics.builds import BuildsSeen
from controller.metrics.collector import Sources
from controller.probing import Probing
from controller.replicas.calls import follow
from controller.replicas.fence import Fence
from controller.replicas.run import Replicas
from controller.rollouts.run import Rollouts
from controller.run import Controller
from controller.scaling.autoscaler import Autoscaler
from enginehouse.controller_ports import ControllerPorts
from enginehouse.heartbeat import beat, check
from enginehouse.local.state_dir import REPLICAS, default_state_dir
from enginehouse.settings import PREFIX, Settings, load
from inference.control import health
from inference.introspection import introspect
from inference.probe import probe_inference
from model_registry.build_jobs.store import BuildStore
from model_registry.connection import connect
from model_registry.demand.store import DemandStore
from model_registry.rollout_evidence.store import EvidenceStore
from model_registry.snapshot import Snapshot
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
    patience = settings.controller.replicas
    demand = DemandStore.of(redis, settings.registry, patience.stale_after_s)
    fence = Fence(patience.margin_s)
    surroundings = Surroundings(
        registry=settings.registry.name,
        folder=settings.controller.state_path or default_state_dir() / REPLICAS,
        environment={name: value for name, value in os.environ.items() if not name.startswith(PREFIX)},
        fence=fence.token,
    )
    replicas = Replicas(
        store,
        Autoscaler(patience.stale_after_s),
        demand,
        partial(actuator_of, surroundings=surroundings),
        fence,
        patience,
    )
    controller = Controller(
        store,
        partial(introspect, session=session),
        partial(health, session=session),
        settings.controller,
        settings.registry.endpoint_ttl_s,
        Rollouts(store, EvidenceStore.of(redis, settings.registry), patience.stale_after_s),
        replicas,
        Probing(probe_inference, settings.controller, demand.gather),
    )
    ports = ControllerPorts(settings.controller)
    builds = BuildsSeen(BuildStore.of(redis, settings.registry))

    def registry_changed(snapshot: Snapshot) -> None:
        controller.registry_changed(snapshot)
        ports.registry_changed(snapshot)

    watcher = Watcher(store, on_change=registry_changed, config=settings.registry)
    supervisor = Supervisor()
    alive = settings.controller.alive_file
    try:
        if alive is not None:
            check(alive)
            supervisor.start("heartbeat", beat(alive, lambda: supervisor.healthy))
        await watcher.start()
        await ports.open(
            Sources(
                watcher.reader(),
                lambda: controller.leadership is not None,
                lambda: replicas.memories,
                replicas.changes.read,
                lambda: builds.counts,
            )
        )
        if settings.controller.metrics_port is not None:
            supervisor.start("builds", builds.run, restart_after_s=1.0)
        supervisor.start("controller", controller.run, restart_after_s=1.0)
        supervisor.start("calls", partial(follow, demand, controller.look_soon), restart_after_s=1.0)
        await ended.wait()
    finally:
        await ports.close()
        await supervisor.close()
        await watcher.close()
        await session.close()
        await redis.aclose()
