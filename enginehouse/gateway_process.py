"""One gateway process: everything it is made of, built once, in order, and closed in reverse.

`gateway.workers` forks it and gives it a seat at a shared port.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from secrets import token_hex

import uvloop
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from enginehouse.errors import SettingsError, report
from enginehouse.settings import Settings
from gateway.accounting import Accounts
from gateway.admin import admin_routes
from gateway.app import make_app
from gateway.batch_jobs.parts import BatchJobs
from gateway.builds import build_routes
from gateway.connections import own_connections
from gateway.decisions import decision_routes
from gateway.demand import DemandReports, demand_routes
from gateway.discovery import Discovery, Readiness
from gateway.forecasts import forecast_routes
from gateway.generation import Generation
from gateway.shadow.copies import Copies
from gateway.shadow.records import Records
from gateway.token_counts import TokenCounts
from gateway.tokenization import Tokenization
from gateway.worker_seat import BACKLOG, WorkerSeat
from gateway.workers import EXIT_NO_RESTART, METRICS_VARIABLE
from inference.adapters import Adapters
from inference.client import ModelClients
from inference.kv_events import TrtllmServe
from inference.push_http import Timeouts
from inference.tokenizer import Tokenizers
from model_registry.build_jobs.store import BuildStore, Terms
from model_registry.connection import connect
from model_registry.demand.store import DemandStore
from model_registry.entities import Endpoint
from model_registry.knobs import BUILT_IN
from model_registry.kv_feed.store import KvFeedStore
from model_registry.rollout_evidence.store import EvidenceStore
from model_registry.slices.exchange import Exchange
from model_registry.slices.store import SliceStore
from model_registry.snapshot import Snapshot
from model_registry.store import RegistryStore
from model_registry.watcher import Watcher
from router.attempts import Router
from router.capacity import Capacity
from router.gossip import Gossip
from router.kv_reading import KvReading
from telemetry.config import TelemetryConfig
from telemetry.garbage import freeze_gc
from telemetry.lifecycle import Drain, Supervisor, every, watch_loop_lag
from telemetry.logs import Logs
from telemetry.metrics import Metrics
from telemetry.tracing import Tracing
from tenancy.batch_jobs.store import JobStore
from tenancy.limits import TenantLimits

_log = logging.getLogger(__name__)
_HOUSEKEEPING_S = 1.0
_SHUTDOWN_S = 2.0
"""For what is left of requests that were cut."""


class GatewayProcess:
    """The parts of one running gateway process; `gateway_process` builds and closes it."""

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        tracing: Tracing,
        worker: int = 0,
        life: str | None = None,
        ended: Sequence[str] = (),
    ) -> None:
        config = settings.gateway
        self.worker = worker
        self.settings = settings
        self.metrics = metrics
        self._redis = connect(settings.registry)
        self.store = RegistryStore.of(self._redis, settings.registry)
        of_builds = Terms(settings.builder.attempts, settings.builder.retention_s)
        self.builds = BuildStore.of(self._redis, settings.registry, of_builds)
        self.watcher = Watcher(
            self.store, settings.registry.snapshot_path, self._registry_changed, config=settings.registry
        )
        self.snapshot: Callable[[], Snapshot] = self.watcher.reader()
        """The registry as last known; asked several times in every request."""
        self._seen = asyncio.Event()
        self.supervisor = Supervisor()
        self.tokenizers = Tokenizers()
        accounts = Accounts(metrics, settings.telemetry.capture_content)
        timeouts = Timeouts(
            config.connect_timeout_s,
            config.first_byte_timeout_s,
            config.idle_timeout_s,
            config.request_timeout_s,
        )
        self.clients = ModelClients(timeouts)
        self.adapters = Adapters(config.adapter_cache_bytes)
        self.exchange = Exchange(
            settings.slices, SliceStore.of(self._redis, settings.registry), config.workers
        )
        capacity = self.capacity = Capacity(self.exchange)
        self.router = Router(
            settings.router,
            self.clients,
            self.snapshot,
            accounts,
            self.adapters,
            knobs=lambda profile: self.snapshot().knobs(profile),
            capacity=capacity,
        )
        self._exchange_gossip(settings.slices.report_s)
        self.demand_store = DemandStore.of(self._redis, settings.registry)
        self.demand = DemandReports(self.demand_store, self.router.demanded, life or token_hex(8), ended)
        self.router.queueing.holding.on_held = self.demand.urgent
        self._kv_source = TrtllmServe()
        self.kv_reading = KvReading(
            {"trtllm-serve": self._kv_source},
            KvFeedStore.of(self._redis, settings.registry),
            self.router.deciding.kv_feeds,
            self._endpoints,
            metrics,
            self.exchange.name,
            settings.router.kv_events_pause_s,
        )
        limits = self.limits = TenantLimits(self.exchange, settings.slices.top_up_wait_s)
        self.generation = Generation(
            config, self.snapshot, self.tokenizers, self.adapters, self.router, tracing, accounts, limits
        )
        evidence = EvidenceStore.of(self._redis, settings.registry)
        self.records = Records(evidence, self.snapshot, self.exchange.name)
        self.copies = Copies(self.clients, self.router, self.records, metrics, config.request_timeout_s)
        self.generation.on_watched = self.copies.finished
        self.batch_jobs = self._batch_jobs()
        self.drain = Drain(
            lambda: self.generation.in_flight + self.batch_jobs.slices,
            deadline_s=config.drain_timeout_s,
            notice_s=config.drain_notice_s,
        )

    def _batch_jobs(self) -> BatchJobs:
        config, store = self.settings.batch_jobs, JobStore.of(self._redis, self.settings.registry)
        parts = self.snapshot, self.router, self.generation
        try:
            return BatchJobs.of(config, self.settings.gateway, *parts, store, self.metrics)
        except OSError as error:
            raise SettingsError(
                f"batch_jobs.store_path {config.store_path} cannot be used: {error.strerror}",
                "name a folder that this user can write, or leave batch_jobs.store_path out",
            ) from error

    def _endpoints(self) -> list[Endpoint]:
        return [endpoint for group in self.snapshot().endpoints.values() for endpoint in group]

    def readiness(self) -> Readiness:
        """Whether this process should be sent requests."""
        if self.drain.draining:
            return Readiness(False, "draining")
        if not self.supervisor.healthy:
            return Readiness(False, "; ".join(f"{n}: {why}" for n, why in self.supervisor.problems.items()))
        if self.snapshot().stale:
            return Readiness(False, "the registry has not been seen yet")
        return Readiness(True, "")

    def _exchange_gossip(self, report_s: float) -> None:
        """Tell the other workers what is in flight here, and take over what is there, with every report."""
        deciding, paces, loop = self.router.deciding, self.router.paces, asyncio.get_running_loop()
        gossip = deciding.gossip = Gossip(lambda: deciding.in_flight(loop.time()), report_s, paces.late)
        paces.others = gossip.late

        def tell() -> str:
            deciding.hear(gossip, loop.time())
            return gossip.tell()

        self.exchange.gossips(tell, gossip.hear)

    async def start(self) -> None:
        """Begin the background work; wait for a first view of the registry, but not for ever."""
        self.supervisor.start("registry-watcher", self.watcher.run(), restart_after_s=None)
        self.supervisor.start("loop-lag", watch_loop_lag(self.metrics.loop_lag))
        self.supervisor.start("housekeeping", every(_HOUSEKEEPING_S, self._keep_house))
        self.supervisor.start("slices", self.exchange.run, restart_after_s=1.0)
        self.supervisor.start("rollout-evidence", self.records.run, restart_after_s=1.0)
        self.supervisor.start("demand", self.demand.run, restart_after_s=1.0)
        self.supervisor.start("kv-events", self.kv_reading.run, restart_after_s=1.0)
        if self.batch_jobs.worker is not None:
            self.supervisor.start("batch-jobs", self.batch_jobs.worker.run, restart_after_s=1.0)
        registry = self.settings.registry
        with suppress(TimeoutError):
            async with asyncio.timeout(registry.connect_timeout_s + registry.command_timeout_s):
                await self._seen.wait()

    async def close(self) -> None:
        """End the background work and every connection."""
        await self.supervisor.close()
        await self.demand.close()
        await self.copies.close()
        await self.clients.close()
        await self._kv_source.close()
        self.tokenizers.close()
        self.adapters.close()
        self.metrics.flush()
        await self._redis.aclose()

    def _registry_changed(self, snapshot: Snapshot) -> None:
        self._seen.set()
        endpoints = [endpoint for group in snapshot.endpoints.values() for endpoint in group]
        self.metrics.learn(
            snapshot.models,
            {endpoint.profile for endpoint in endpoints} | BUILT_IN.keys() | snapshot.profiles.keys(),
            (endpoint.name for endpoint in endpoints),
            snapshot.adapters,
            snapshot.tenants,
        )
        self.router.registry_changed()

    def _keep_house(self) -> None:
        now_s = asyncio.get_running_loop().time()
        for name, load_ in self.router.ledger.loads().items():
            self.metrics.breaker(name, load_.breaker.state(now_s, self.settings.router))
        self.metrics.slices(self.worker, self.capacity.units(), self.limits.units())
        self.metrics.renewals(self.exchange.lost_reports, self.exchange.connected)
        self.metrics.rollouts({model: one.status.share for model, one in self.snapshot().rolling.items()})
        self.metrics.held(self.router.queueing.holding.requests())
        feeds = self.router.deciding.kv_feeds
        for endpoint in self._endpoints() if feeds else ():
            if (feed := feeds.of(endpoint)) is not None and feed.heard_s > 0:
                self.metrics.kv_age(endpoint.name, now_s - feed.heard_s)
        self.metrics.registry(self.watcher.connected)
        self.metrics.snapshot(self.watcher.current.version, self.watcher.confirmed_at_s)
        self.metrics.flush()
        self.generation.cut_overdue()


@asynccontextmanager
async def gateway_process(
    settings: Settings, worker: int = 0, life: str | None = None, ended: Sequence[str] = ()
) -> AsyncIterator[GatewayProcess]:
    """All parts, running; closed in reverse at the end. `life` and `ended`: as of a seat."""
    metrics_dir = os.environ.get(METRICS_VARIABLE)
    tracing = _tracing(settings.telemetry)
    metrics = Metrics(Path(metrics_dir) if metrics_dir else None)
    process = GatewayProcess(settings, metrics, tracing, worker, life, ended)
    try:
        await process.start()
        yield process
    finally:
        await process.close()
        await asyncio.to_thread(tracing.close)


def _tracing(config: TelemetryConfig) -> Tracing:
    try:
        return Tracing(config)
    except OSError as error:
        raise SettingsError(
            f"telemetry.trace_file {config.trace_file} cannot be written: {error.strerror}",
            "name another file, or leave telemetry.exporter out",
        ) from error


async def _serve(settings: Settings, seat: WorkerSeat) -> None:
    """Serve until SIGTERM or SIGINT, then drain."""
    config, worker = settings.gateway, seat.index
    async with gateway_process(settings, worker, seat.life, seat.ended) as process:
        discovery = Discovery(process.snapshot, process.readiness, process.metrics)
        admin = admin_routes(process.store, process.watcher)
        counts = TokenCounts(config, process.snapshot, process.tokenizers)
        tokenization = Tokenization(config, process.snapshot, process.tokenizers)
        decisions = decision_routes(process.router, process.snapshot, worker, config.workers)
        forecasts = forecast_routes(process.router.deciding, process.snapshot, worker, config.workers)
        builds = build_routes(process.builds, process.snapshot)
        more = [
            *counts.routes(),
            *tokenization.routes(),
            *admin,
            *decisions,
            *forecasts,
            *demand_routes(process.demand_store, process.snapshot),
            *builds,
            *process.batch_jobs.routes,
        ]
        app = make_app(process.generation, discovery, more, config.limits.max_body_bytes)
        runner = web.AppRunner(
            app,
            access_log=None,
            shutdown_timeout=_SHUTDOWN_S,
            handler_cancellation=True,
            keepalive_timeout=config.keepalive_timeout_s,
            max_field_size=config.max_header_bytes,
            max_line_size=config.max_header_bytes,
            auto_decompress=True,
        )
        await runner.setup()
        if runner.server is not None:
            own_connections(
                runner.server,
                process.generation.handlers,
                config.limits.max_body_bytes,
                config.max_header_bytes,
            )
        listening = seat.listen()
        site = web.SockSite(runner, listening, backlog=BACKLOG)
        await site.start()
        process.drain.listen()
        freeze_gc()
        seat.report_ready()
        _log.info("gateway listens", extra={"host": config.host, "port": listening.getsockname()[1]})

        async def stop_accepting() -> None:
            process.generation.is_draining = True
            process.batch_jobs.drain()
            await site.stop()

        async def cut() -> None:
            process.generation.cut()
            await runner.cleanup()

        await process.drain.run(stop_accepting, cut)
        _log.info("gateway closed")


def _is_ours(record: logging.LogRecord) -> bool:
    """Whether an error that aiohttp logs is not just the answer to bytes that are no HTTP."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, (HttpProcessingError, web.RequestPayloadError))


def run_worker(settings: Settings, seat: WorkerSeat) -> None:
    """Be one worker until SIGTERM or SIGINT; settings that cannot be used end it with `EXIT_NO_RESTART`."""
    seat.take()
    logs = Logs(settings.telemetry)
    logging.getLogger("aiohttp.server").addFilter(_is_ours)
    try:
        uvloop.run(_serve(settings, seat))
    except SettingsError as error:
        report(error)
        sys.exit(EXIT_NO_RESTART)
    finally:
        logs.close()
