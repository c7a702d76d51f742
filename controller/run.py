"""The controller: many may run, one leads; it keeps the registered endpoints what they should be."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Callable

import aiohttp

from controller.config import ControllerConfig
from controller.health import Health
from controller.reconcile import Action, Register, Remove, reconcile
from controller.targets import targets
from model_registry.errors import (
    IllegalTransitionError,
    LeadershipLostError,
    RegistryUnavailableError,
    UnknownObjectError,
)
from model_registry.snapshot import Snapshot
from model_registry.store import Leadership, RegistryStore

_log = logging.getLogger(__name__)


class Controller:
    """Owned by one process; `run` ends only by cancellation."""

    def __init__(
        self,
        store: RegistryStore,
        snapshot: Callable[[], Snapshot],
        config: ControllerConfig,
        endpoint_ttl_s: float,
    ) -> None:
        self._store = store
        self._snapshot = snapshot
        self._config = config
        self._ttl_s = endpoint_ttl_s
        self._holder = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._changed = asyncio.Event()
        self.leadership: Leadership | None = None

    def registry_changed(self, _snapshot: Snapshot) -> None:
        """Deployments may have changed: look at once."""
        self._changed.set()

    async def run(self) -> None:
        """Look, reconcile, wait; a registry that is away is waited for."""
        async with aiohttp.ClientSession() as session:
            health = Health(self._config, session)
            try:
                while True:
                    await self._round(health)
                    await self._pause()
            finally:
                await self._resign()

    async def _round(self, health: Health) -> None:
        try:
            self.leadership = await self._lead()
            if self.leadership is None:
                return
            deployments = [one for group in self._snapshot().deployments.values() for one in group]
            wanted = targets(deployments)
            observed = await health.look(wanted.values())
            registered = {e.name: e for group in self._snapshot().endpoints.values() for e in group}
            actions = reconcile(wanted, registered, observed)
            await self._renew([name for name in wanted if name in registered])
            for action in actions:
                await self._act(action)
        except RegistryUnavailableError as error:
            _log.warning("registry away; endpoints stay as they are", extra={"error": str(error)})
        except LeadershipLostError:
            _log.info("another controller leads now")
            self.leadership = None

    async def _lead(self) -> Leadership | None:
        claimed = await self._store.claim_leadership(self._holder, self._config.leadership_s)
        if claimed is not None and self.leadership is None:
            _log.info("leads", extra={"token": claimed.token})
        return claimed

    async def _renew(self, names: list[str]) -> None:
        """Renew before sweeping: after an outage of Redis nothing that still exists may lapse."""
        renewal = await self._store.renew(names, self._ttl_s, leadership=self.leadership)
        swept = await self._store.sweep(as_of_ms=renewal.as_of_ms, leadership=self.leadership)
        if swept:
            _log.warning("endpoints lapsed", extra={"endpoints": swept})

    async def _act(self, action: Action) -> None:
        try:
            match action:
                case Register(endpoint, reason):
                    await self._store.register_endpoint(endpoint, self._ttl_s, leadership=self.leadership)
                    _log.info(
                        "endpoint registered",
                        extra={
                            "endpoint": endpoint.name,
                            "state": endpoint.state,
                            "change": reason,
                            "reason": endpoint.reason,
                        },
                    )
                case Remove(name, reason):
                    await self._store.set_endpoint_state(name, "gone", reason, leadership=self.leadership)
                    _log.info("endpoint removed", extra={"endpoint": name, "reason": reason})
        except (UnknownObjectError, IllegalTransitionError) as error:
            # The registry has moved on since the snapshot; the next round sees it.
            _log.info("change overtaken", extra={"error": str(error)})

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(self._config.health_period_s):
                await self._changed.wait()
        except TimeoutError:
            return
        self._changed.clear()
        # Changes come in groups, and our own writes come back as changes: one look serves them all.
        await asyncio.sleep(min(0.05, self._config.health_period_s))

    async def _resign(self) -> None:
        if self.leadership is None:
            return
        try:
            await self._store.resign_leadership(self.leadership)
        except RegistryUnavailableError:
            _log.info("could not resign; the claim lapses by itself")
