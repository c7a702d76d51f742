"""A cluster as its API server shows it: the calls that the actuator makes, answered in the API's own words.

A real HTTP server. Bodies follow the API reference (`kubernetes.io/docs/reference/kubernetes-api`: Scale v1
autoscaling, EndpointSlice v1 discovery, Status v1 meta), watches and their 410 the page "API concepts", and
which pod goes first the page "ReplicaSet". Words of refusals are those of k8s.io/apimachinery's errors.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

from controller.actuators.kubernetes.leaving import DELETION_COST
from tests.model_registry.conftest import until

TOKEN = "token-of-the-service-account"
NAMESPACE = "llm"
PER_SLICE = 3
"""Endpoints in one slice; 100 in a cluster."""


@dataclass
class Pod:
    """One pod of the workload."""

    name: str
    uid: str
    ip: str
    ready: bool = False
    terminating: bool = False
    annotations: dict[str, str] = field(default_factory=dict)

    def endpoint(self) -> dict[str, Any]:
        """As its slice has it."""
        serving = self.ready
        return {
            "addresses": [self.ip],
            "conditions": {
                "ready": serving and not self.terminating,
                "serving": serving,
                "terminating": self.terminating,
            },
            "nodeName": "node-1",
            "targetRef": {"kind": "Pod", "namespace": NAMESPACE, "name": self.name, "uid": self.uid},
        }


@dataclass
class Refusal:
    """What the next call that fits gets in place of an answer."""

    method: str
    status: int
    message: str
    headers: Mapping[str, str]


class Cluster:
    """One namespace with one workload `chat` and the Service of its name."""

    def __init__(
        self, plural: str = "deployments", group: str = "apps/v1", port: int = 8000, net: str = "10.0.0"
    ) -> None:
        self.plural = plural
        self.group = group
        self.pod_port = port
        self.net = net
        self.replicas = 0
        self.version = 100
        self.oldest = 0
        """Changes before it are no longer kept."""
        self.pods: dict[str, Pod] = {}
        self.calls: list[tuple[str, str]] = []
        self.refusals: deque[Refusal] = deque()
        self.held = asyncio.Event()
        self.held.set()
        self.on_update: Callable[[], None] = lambda: None
        self.changed = asyncio.Event()
        """The number was set."""
        self._born = 0
        self._names: dict[str, None] = {}
        """Slices that there are."""
        self._events: list[tuple[int, dict[str, Any]]] = []
        self._told = asyncio.Condition()
        self._watchers: set[web.StreamResponse] = set()
        self._runner: web.AppRunner | None = None
        self.url = ""

    # -- what the test does -------------------------------------------------------------------------------

    def refuse(self, method: str, status: int, message: str = "", **headers: str) -> None:
        """Once."""
        told = {name.replace("_", "-"): value for name, value in headers.items()}
        self.refusals.append(Refusal(method, status, message, told))

    def kubeconfig(self, folder: Path) -> str:
        """A kubeconfig by which it is reached."""
        path = folder / "kubeconfig"
        path.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "c",
                    "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                    "clusters": [{"name": "c", "cluster": {"server": self.url}}],
                    "users": [{"name": "u", "user": {"token": TOKEN}}],
                }
            )
        )
        return str(path)

    async def settle(self) -> None:
        """What the workload's controller does: makes pods, or takes the right ones down."""
        living = [pod for pod in self.pods.values() if not pod.terminating]
        for _ in range(len(living), self.replicas):
            self._born += 1
            ordinal = self._born if self.plural == "deployments" else self._free_ordinal()
            name = f"chat-7d9f-{ordinal:05d}" if self.plural == "deployments" else f"chat-{ordinal}"
            self.pods[name] = Pod(name, f"uid-{self._born}", f"{self.net}.{self._born}")
        for pod in self._first_to_go(living)[: max(len(living) - self.replicas, 0)]:
            pod.terminating = True
        await self.publish()

    async def ready(self, *names: str) -> None:
        """These pods are ready, or all."""
        for pod in self.pods.values():
            pod.ready = pod.ready or not names or pod.name in names
        await self.publish()

    async def gone(self) -> None:
        """Terminating pods are gone."""
        self.pods = {name: pod for name, pod in self.pods.items() if not pod.terminating}
        await self.publish()

    async def publish(self) -> None:
        """Bring the slices in line with the pods, each change with a version of its own."""
        endpoints = [pod.endpoint() for pod in self.pods.values()]
        parts = [endpoints[at : at + PER_SLICE] for at in range(0, len(endpoints), PER_SLICE)] or [[]]
        slices = {f"chat-{at}": part for at, part in enumerate(parts)}
        async with self._told:
            for name, part in slices.items():
                self.version += 1
                kind = "MODIFIED" if name in self._names else "ADDED"
                self._events.append((self.version, {"type": kind, "object": self._slice(name, part)}))
            for name in [name for name in self._names if name not in slices]:
                self.version += 1
                self._events.append((self.version, {"type": "DELETED", "object": self._slice(name, [])}))
            self._names = dict.fromkeys(slices)
            self._told.notify_all()

    async def bookmark(self) -> None:
        """Tell watchers the present version, as API servers do now and then."""
        async with self._told:
            self.version += 1
            told = {"kind": "EndpointSlice", "metadata": {"resourceVersion": str(self.version)}}
            self._events.append((self.version, {"type": "BOOKMARK", "object": told}))
            self._told.notify_all()

    async def watched(self) -> None:
        """Wait until there is a watch."""
        await until(lambda: bool(self._watchers))

    async def drop_watches(self) -> None:
        """Cut their connections."""
        for watcher in list(self._watchers):
            if watcher._req is not None and watcher._req.transport is not None:
                watcher._req.transport.abort()
        self._watchers.clear()

    def watched_from(self) -> list[str]:
        """The versions that watches began at."""
        return [
            call[1].partition("resourceVersion=")[2].partition("&")[0]
            for call in self.calls
            if "watch=1" in call[1]
        ]

    # -- what it answers ----------------------------------------------------------------------------------

    @asynccontextmanager
    async def running(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[Cluster]:
        """On a port of its own."""
        app = web.Application(middlewares=[self._guard])
        scale = f"/apis/{self.group}/namespaces/{NAMESPACE}/{self.plural}/chat/scale"
        slices = f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices"
        app.router.add_get(scale, self._read_scale)
        app.router.add_put(scale, self._replace_scale)
        app.router.add_patch(f"/api/v1/namespaces/{NAMESPACE}/pods/{{name}}", self._patch_pod)
        app.router.add_get(slices, self._slices)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        scheme = "http" if tls is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._runner.addresses[0][1]}"
        try:
            await self.publish()
            yield self
        finally:
            await self.drop_watches()
            await self._runner.cleanup()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.calls.append((request.method, request.path_qs))
        await self.held.wait()
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return _status(401, "Unauthorized", "Unauthorized")
        if self.refusals and self.refusals[0].method in {request.method, "ANY"}:
            refusal = self.refusals.popleft()
            return _status(refusal.status, "", refusal.message, refusal.headers)
        try:
            answer: web.StreamResponse = await handler(request)
        except web.HTTPNotFound:
            return _status(404, "NotFound", "the server could not find the requested resource")
        return answer

    async def _read_scale(self, _request: web.Request) -> web.Response:
        return web.json_response(self._scale())

    async def _replace_scale(self, request: web.Request) -> web.Response:
        self.on_update()
        body = await request.json()
        if body["metadata"].get("resourceVersion") != str(self.version):
            return _status(
                409,
                "Conflict",
                f'Operation cannot be fulfilled on {self.plural}.apps "chat": the object has been modified; '
                "please apply your changes to the latest version and try again",
            )
        self.replicas = body["spec"]["replicas"]
        self.version += 1
        self.changed.set()
        return web.json_response(self._scale())

    async def _patch_pod(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        assert request.content_type == "application/merge-patch+json"
        if name not in self.pods:
            return _status(404, "NotFound", f'pods "{name}" not found')
        for key, value in (await request.json())["metadata"]["annotations"].items():
            if value is None:
                self.pods[name].annotations.pop(key, None)
            else:
                self.pods[name].annotations[key] = value
        return web.json_response({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": name}})

    async def _slices(self, request: web.Request) -> web.StreamResponse:
        if request.query["labelSelector"] != "kubernetes.io/service-name=chat":
            return web.json_response(self._list([]))
        if request.query.get("watch") != "1":
            newest = {
                event["object"]["metadata"]["name"]: event for _, event in self._events if _is_slice(event)
            }
            return web.json_response(self._list([newest[name]["object"] for name in self._names]))
        return await self._watch(request)

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        seen = int(request.query["resourceVersion"])
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        self._watchers.add(response)
        try:
            while True:
                if seen < self.oldest:
                    told = _told(410, "Expired", f"too old resource version: {seen} ({self.version})")
                    await response.write(json.dumps({"type": "ERROR", "object": told}).encode() + b"\n")
                    return response
                for version, event in self._events:
                    if version > seen:
                        await response.write(json.dumps(event).encode() + b"\n")
                        seen = version
                async with self._told:
                    while self._events[-1][0] <= seen >= self.oldest:
                        await self._told.wait()
        finally:
            self._watchers.discard(response)

    def _scale(self) -> dict[str, Any]:
        spec = {"replicas": self.replicas} if self.replicas else {}
        return {
            "kind": "Scale",
            "apiVersion": "autoscaling/v1",
            "metadata": {
                "name": "chat",
                "namespace": NAMESPACE,
                "uid": "u-1",
                "resourceVersion": str(self.version),
            },
            "spec": spec,
            "status": {"replicas": len(self.pods), "selector": "app=chat"},
        }

    def _list(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        version = {"resourceVersion": str(self.version)}
        return {
            "kind": "EndpointSliceList",
            "apiVersion": "discovery.k8s.io/v1",
            "metadata": version,
            "items": items,
        }

    def _slice(self, name: str, endpoints: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "kind": "EndpointSlice",
            "apiVersion": "discovery.k8s.io/v1",
            "metadata": {
                "name": name,
                "namespace": NAMESPACE,
                "labels": {"kubernetes.io/service-name": "chat"},
                "resourceVersion": str(self.version),
            },
            "addressType": "IPv4",
            "endpoints": endpoints or None,
            "ports": [
                {"name": "http", "protocol": "TCP", "port": self.pod_port},
                {"name": "grpc", "protocol": "TCP", "port": 8001},
                {"name": "metrics", "protocol": "TCP", "port": 8002},
            ],
        }

    def _free_ordinal(self) -> int:
        return next(at for at in range(len(self.pods) + 1) if f"chat-{at}" not in self.pods)

    def _first_to_go(self, living: list[Pod]) -> list[Pod]:
        if self.plural == "deployments":
            return sorted(living, key=lambda pod: (pod.ready, int(pod.annotations.get(DELETION_COST, 0))))
        return sorted(living, key=lambda pod: int(pod.name.rpartition("-")[2]), reverse=True)


def _is_slice(event: Mapping[str, Any]) -> bool:
    return event["type"] in {"ADDED", "MODIFIED"}


def _told(code: int, reason: str, message: str) -> dict[str, Any]:
    told = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    return {**told, "message": message, "reason": reason, "code": code}


def _status(code: int, reason: str, message: str, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.json_response(_told(code, reason, message), status=code, headers=headers)
