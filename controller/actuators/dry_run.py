"""Dry run: says what would be done, and does nothing; the records go on as if it had been."""

from __future__ import annotations

import logging

from controller.actuators.port import Listing, Running
from model_registry.entities import Deployment
from model_registry.pools import Pool
from model_registry.replicas import Replica

log = logging.getLogger(__name__)


class DryRunPool:
    """Replicas that are records only."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool.name

    async def start(self, replica: Replica, deployment: Deployment) -> Running:
        """Nothing comes up, and nothing is waited for."""
        what = {"pool": self._pool, "replica": replica.name, "deployment": deployment.name}
        log.info("would start a replica", extra={**what, "reason": replica.reason})
        return Running(None, "")

    async def stop(self, replica: Replica, deployment: Deployment | None) -> None:
        """Nothing goes down."""
        what = {"pool": self._pool, "replica": replica.name, "deployment": deployment and deployment.name}
        log.info("would stop a replica", extra={**what, "reason": replica.reason})

    async def found(self) -> Listing:
        """Nothing is there."""
        return Listing(())

    async def close(self) -> None:
        """Nothing is open."""
