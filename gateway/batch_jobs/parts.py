"""BatchJobs: what a gateway process has of batch jobs: routes, and the worker where they are on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Self

from aiohttp import web

from gateway.batch_jobs.api import BatchApi, refusing_routes
from gateway.batch_jobs.config import BatchJobsConfig
from gateway.batch_jobs.contents import Contents
from gateway.batch_jobs.worker import BatchWorker
from gateway.config import GatewayConfig
from gateway.generation import Generation
from model_registry.snapshot import Snapshot
from router.attempts import Router
from router.spare import SpareCapacity
from telemetry.metrics import Metrics
from tenancy.batch_jobs.store import JobStore


class BatchJobs(NamedTuple):
    """Made once for each gateway process."""

    routes: Sequence[web.AbstractRouteDef]
    worker: BatchWorker | None
    """None: batch jobs are off here."""

    @classmethod
    def of(
        cls,
        config: BatchJobsConfig,
        gateway: GatewayConfig,
        snapshot: Callable[[], Snapshot],
        router: Router,
        generation: Generation,
        store: JobStore,
        metrics: Metrics,
    ) -> Self:
        """Build the parts; nothing runs yet. Raises OSError where the store's folder cannot be made."""
        if config.store_path is None:
            return cls(refusing_routes(), None)
        contents = Contents(config.store_path, config.min_free_bytes)
        contents.create()
        spare = SpareCapacity(router.ledger, router.waiting, snapshot, config.share)
        limits = gateway.limits
        worker = BatchWorker(
            config,
            store,
            contents,
            snapshot,
            generation,
            spare,
            router.demand,
            metrics,
            limits.max_body_bytes,
        )
        api = BatchApi(config, store, contents, snapshot, limits, gateway.body_timeout_s, worker.wake)
        return cls(api.routes(), worker)

    @property
    def slices(self) -> int:
        """Slices of rows that a drain waits for."""
        return self.worker.slices if self.worker is not None else 0

    def drain(self) -> None:
        """Start nothing more."""
        if self.worker is not None:
            self.worker.drain()
