"""The controller: keeps the registry's endpoints in line with deployments and model servers.

Many may run; one leads. The leader looks at every server once per interval, or at once when it hears that
the registry changed. It renews every endpoint that a deployment asks for, healthy or not: what lapses is
what nobody asks for any more. Endpoints are swept only as far as they had lapsed when the same round
renewed them, so that an outage of Redis, however long, takes none away.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain

from controller.config import ControllerConfig
from controller.desired import Desired, desired_endpoints, endpoint_name
from controller.observe import Health, Introspect, Observation, Observer
from controller.probing import Probing
from controller.reconcile import Action, Register, reconcile
from controller.replicas.run import Replicas
from controller.rollouts.run import Rollouts
from model_registry.entities import Deployment, Endpoint
from model_registry.errors import (
    IllegalTransitionError,
    LeadershipLostError,
    RegistryBusyError,
    RegistryUnavailableError,
    UnknownObjectError,
)
from model_registry.leadership import Leadership
from model_registry.snapshot import Snapshot
from model_registry.store import RegistryStore

_log = logging.getLogger(__name__)

STANDBY_S = 0.25
"""How often a controller that does not lead asks whether it may."""
SETTLE_S = 0.05
"""Changes come in groups, and our own come back as changes: one look serves them all."""


class Controller:
    """One controller; `run` until cancelled. `endpoint_ttl_s`: how long endpoints outlive their renewal."""

    def __init__(
        self,
        store: RegistryStore,
        introspect: Introspect,
        health: Health,
        config: ControllerConfig | None = None,
        endpoint_ttl_s: float = 10.0,
        rollouts: Rollouts | None = None,
        replicas: Replicas | None = None,
        probing: Probing | None = None,
    ) -> None:
        """`rollouts` and `replicas`: None leaves them alone. `probing`: None takes servers at their word."""
        self._store = store
        self._config = config or ControllerConfig()
        self._ttl_s = endpoint_ttl_s
        self._changed = asyncio.Event()
        self._rollouts = rollouts
        self._replicas = replicas
        if replicas is not None:
            replicas.on_news = self.look_soon
        self._probing = probing
        self._observer = Observer(introspect, health, self._config, probing)
        self._failures: Counter[str] = Counter()
        self._holder = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._away = False
        self.leadership: Leadership | None = None
        """Set while this controller leads."""

    async def run(self) -> None:
        """Lead, or wait to lead, until cancelled; then let another lead at once."""
        try:
            while True:
                self._changed.clear()
                await self._round()
                await self._pause()
        finally:
            await self._observer.close()
            if self._replicas is not None:
                await self._replicas.close()
            await self._resign()

    def registry_changed(self, _snapshot: Snapshot) -> None:
        """Look at once; for a watcher's `on_change`."""
        self._changed.set()

    def look_soon(self) -> None:
        """Look at once."""
        self._changed.set()

    async def _pause(self) -> None:
        if self.leadership is None:
            await asyncio.sleep(min(self._config.interval_s, STANDBY_S))
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(self._config.interval_s):
                await self._changed.wait()
                await asyncio.sleep(SETTLE_S)

    async def _round(self) -> None:
        try:
            if await self._lead():
                await self._reconcile()
            if self._away:
                _log.info("registry back")
            self._away = False
        except RegistryUnavailableError as error:
            if not self._away:
                _log.warning("registry away; endpoints stay as they are", extra={"error": str(error)})
            self._away = True
        except LeadershipLostError:
            _log.warning("leadership lost", extra={"holder": self._holder})
            self.leadership = None
            if self._replicas is not None:
                await self._replicas.lead(None)

    async def _lead(self) -> bool:
        before, ttl_s = self.leadership, self._config.leadership_ttl_s
        self.leadership = await self._store.claim_leadership(self._holder, ttl_s)
        if (before is None) != (self.leadership is None):
            _log.info(
                "leadership changed", extra={"holder": self._holder, "leading": self.leadership is not None}
            )
        if self._replicas is not None:
            await self._replicas.lead(self.leadership)
        return self.leadership is not None

    async def _reconcile(self) -> None:
        snapshot = await self._store.load()
        desired = desired_endpoints(
            _deployments(snapshot),
            snapshot.engines,
            snapshot.replicas,
            snapshot.drains.values(),
            snapshot.models,
        )
        registered = {e.name: e for group in snapshot.endpoints.values() for e in group}
        if self._probing is not None:
            await self._probing.hear(desired)
        looked_at = {name: wanted for name, wanted in desired.items() if wanted.drained is None}
        observations = await self._observer.observe_all(looked_at, registered, self._config.interval_s)
        self._count_failures(desired, observations)
        actions = reconcile(desired, observations, registered, self._failures, self._config.unhealthy_after)
        if not await self._lead():
            return
        for action in actions:
            await self._perform(action, registered.get(action.name))
        renewal = await self._store.renew(
            [
                *(
                    name
                    for name, one in desired.items()
                    if one.drained or not _is_draining(registered.get(name))
                ),
                *_draining(snapshot),
            ],
            self._ttl_s,
            leadership=self.leadership,
        )
        for name in await self._store.sweep(as_of_ms=renewal.as_of_ms, leadership=self.leadership):
            _log.info("endpoint gone", extra={"endpoint": name, "reason": "not renewed"})
        if self._rollouts is not None:
            await self._rollouts.act(snapshot, self.leadership)
        await self._act_on_replicas(snapshot)

    async def _act_on_replicas(self, snapshot: Snapshot) -> None:
        """Last, and apart: endpoints of what serves are renewed whatever becomes of this."""
        if self._replicas is None:
            return
        try:
            await self._replicas.act(snapshot, self.leadership)
        except (RegistryUnavailableError, LeadershipLostError):
            raise
        except Exception:
            _log.exception("acting on replicas failed unexpectedly")

    def _count_failures(self, desired: dict[str, Desired], observations: dict[str, Observation]) -> None:
        for name in self._failures.keys() - desired.keys():
            del self._failures[name]
        for name, seen in observations.items():
            self._failures[name] = 0 if seen.healthy else self._failures[name] + 1

    async def _perform(self, action: Action, before: Endpoint | None) -> None:
        try:
            if isinstance(action, Register):
                state = action.endpoint.state
                await self._store.register_endpoint(action.endpoint, self._ttl_s, leadership=self.leadership)
            else:
                state = action.state
                ttl_s = self._config.drain_s if state == "draining" else self._ttl_s
                await self._store.set_endpoint_state(
                    action.name, state, action.reason, ttl_s=ttl_s, leadership=self.leadership
                )
        except (UnknownObjectError, IllegalTransitionError, RegistryBusyError) as error:
            _log.info("endpoint changed meanwhile", extra={"endpoint": action.name, "error": str(error)})
            return
        was = None if before is None else before.state
        _log.info(
            "endpoint changed",
            extra={"endpoint": action.name, "was": was, "state": state, "reason": action.reason},
        )

    async def _resign(self) -> None:
        if self.leadership is None:
            return
        try:
            await self._store.resign_leadership(self.leadership)
        except RegistryUnavailableError as error:
            _log.info("leadership not handed over", extra={"error": str(error)})
        self.leadership = None


def _deployments(snapshot: Snapshot) -> Iterator[Deployment]:
    """Those of a pool have its labels, too; their own win."""
    for deployment in chain(*snapshot.deployments.values()):
        scaling = deployment.scaling
        pool = None if scaling is None else snapshot.pools.get(scaling.pool)
        if pool is not None and pool.labels:
            yield deployment.model_copy(update={"labels": pool.labels_with(deployment.labels)})
        else:
            yield deployment


def _draining(snapshot: Snapshot) -> Iterator[str]:
    """Endpoints of replicas that drain: registered for as long as those do, so that their requests count."""
    for replica in chain(*snapshot.replicas.values()):
        if replica.state == "draining" and replica.server is not None:
            yield endpoint_name(replica.deployment, replica.server)


def _is_draining(endpoint: Endpoint | None) -> bool:
    return endpoint is not None and endpoint.state == "draining"
