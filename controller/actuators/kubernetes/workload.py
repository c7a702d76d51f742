"""The workload of a Kubernetes pool: its number is set, its pods are followed, Kubernetes places them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from controller.actuators.kubernetes.api import Api
from controller.actuators.kubernetes.errors import ConflictError, MissingError
from controller.actuators.kubernetes.leaving import DELETION_COST, goes_first, leaving_order
from controller.actuators.kubernetes.resources import Resource, named, pod, scale_of
from controller.actuators.kubernetes.slices import Ports, members_of, pod_of
from controller.actuators.kubernetes.watch import SliceWatch
from controller.actuators.port import Member
from model_registry.entities import Deployment
from model_registry.leadership import boot_s
from model_registry.pools import KubernetesActuator

_log = logging.getLogger(__name__)

ATTEMPTS = 5
"""At a number that others change at the same time."""
UNASKED_S = 300.0
"""How long pods are followed that nobody asks for any more: their deployment was deleted, or has moved."""


class KubernetesWorkload:
    """Implements `controller.actuators.port.Workload`."""

    def __init__(
        self, settings: KubernetesActuator, fence: Callable[[], int], api: Api | None = None
    ) -> None:
        """`fence` is asked before each act, and raises where this controller may not act any more.

        `api`: one of its own by default.
        """
        self._settings = settings
        self._fence = fence
        self._api = api or Api(settings.kubeconfig)
        self._ports = Ports(settings.port, settings.grpc_port, settings.metrics_port)
        self._watches: dict[str, SliceWatch] = {}
        self._asked_s: dict[str, float] = {}
        self._marked: dict[str, frozenset[str]] = {}

    async def scale(self, deployment: Deployment, replicas: int, leaving: Sequence[str]) -> None:
        """Set the number, on the version of it that was read: somebody else's change is not run over.

        Where an autoscaler sets the number, only those that should go first are marked.
        """
        if self._settings.scaled_by == "autoscaler":
            await self._mark(deployment, leaving)
            return
        scale = self._scale_of(deployment)
        for _ in range(ATTEMPTS):
            present = await self._api.call("get", scale)
            number = int((present.get("spec") or {}).get("replicas", 0))  # 0 is left out of the JSON
            if number == replicas:
                return
            if replicas < number:
                await self._mark(deployment, leaving)
            self._fence()
            try:
                await self._api.call("update", scale, {**present, "spec": {"replicas": replicas}})
            except ConflictError as error:
                conflict = error
                continue
            _log.info("replicas set", extra={"workload": str(scale), "was": number, "replicas": replicas})
            return
        raise conflict

    async def members(self, deployment: Deployment) -> Sequence[Member]:
        """The pods of its Service, those included that are not ready or are going."""
        service = named("service", self._settings.service, deployment.name)
        if service not in self._watches:
            self._watches[service] = SliceWatch(self._api, self._settings.namespace, service)
        self._asked_s[service] = boot_s()
        await self._let_go(boot_s() - UNASKED_S)
        return members_of(await self._watches[service].slices(), service, self._ports)

    def order(self, members: Sequence[Member]) -> tuple[str, ...] | None:
        """Handles in the order in which Kubernetes takes them; None: it can be told."""
        return leaving_order(self._settings.kind, members)

    async def close(self) -> None:
        """Let go of watches and connections."""
        await asyncio.gather(*(watch.close() for watch in self._watches.values()))
        self._watches.clear()
        await self._api.close()

    async def _let_go(self, before_s: float) -> None:
        """Of what was asked for before then only."""
        unasked = [service for service, at_s in self._asked_s.items() if at_s < before_s]
        for service in unasked:
            del self._asked_s[service]
        await asyncio.gather(*[self._watches.pop(service).close() for service in unasked])

    def _scale_of(self, deployment: Deployment) -> Resource:
        name = named("workload", self._settings.workload, deployment.name)
        return scale_of(self._settings.kind, self._settings.namespace, name)

    async def _mark(self, deployment: Deployment, leaving: Sequence[str]) -> None:
        """Give the pods that should go first the lowest deletion cost, and take it from those marked before.

        Only what this process marked is known here; later marks are lower than those that others left.
        """
        if self._settings.kind != "Deployment":
            return
        wanted = frozenset(pod_of(handle) for handle in leaving)
        marked = self._marked.get(deployment.name, frozenset())
        for name in sorted(wanted - marked):
            await self._annotate(name, goes_first(time.time()))
        for name in sorted(marked - wanted):
            await self._annotate(name, None)
        self._marked[deployment.name] = wanted

    async def _annotate(self, name: str, cost: str | None) -> None:
        self._fence()
        try:
            await self._api.call(
                "patch",
                pod(self._settings.namespace, name),
                {"metadata": {"annotations": {DELETION_COST: cost}}},
            )
        except MissingError:
            _log.info("pod is gone already", extra={"pod": name})
