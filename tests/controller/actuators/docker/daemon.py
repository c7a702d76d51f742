"""A Docker daemon as far as the actuator asks one: Engine API 1.41, in the words of daemon 20.10.24.

A started container really listens at the port that it published, unless its image says otherwise.
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

LISTENS, DIES, HANGS, NO_PROGRAM = "engine:1", "dies:1", "hangs:1", "no-program:1"
IMAGES = {LISTENS, DIES, HANGS, NO_PROGRAM}
LOG = "loading\nout of memory\n"


class Daemon:
    """Containers by id; `refuse_gpus`: it has no NVIDIA runtime."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.containers: dict[str, dict[str, Any]] = {}
        self.refuse_gpus = False
        self.created: list[str] = []
        self._made = asyncio.Condition()
        self._sites: dict[str, web.AppRunner] = {}

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def names(self) -> set[str]:
        return {str(one["Name"]).lstrip("/") for one in self.containers.values()}

    async def made(self, count: int) -> None:
        """Returns when so many were created."""
        async with self._made:
            await self._made.wait_for(lambda: len(self.created) >= count)

    async def end(self, container: str, status: int = 1) -> None:
        """Its process ends by itself."""
        await self._close(container)
        self.containers[container]["State"] = {"Status": "exited", "Running": False, "ExitCode": status}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Daemon]:
        app = web.Application()
        base = "/v1.41/containers"
        app.router.add_get("/version", self._version)
        app.router.add_get(f"{base}/json", self._list)
        app.router.add_post(f"{base}/create", self._create)
        app.router.add_get(f"{base}/{{id}}/json", self._inspect)
        app.router.add_get(f"{base}/{{id}}/logs", self._logs)
        app.router.add_post(f"{base}/{{id}}/start", self._start)
        app.router.add_post(f"{base}/{{id}}/stop", self._stop)
        app.router.add_delete(f"{base}/{{id}}", self._delete)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.UnixSite(runner, str(self.socket)).start()
        try:
            yield self
        finally:
            for container in list(self._sites):
                await self._close(container)
            await runner.cleanup()

    # -- the API --------------------------------------------------------------------------------------

    async def _version(self, _request: web.Request) -> web.Response:
        return web.json_response({"Version": "20.10.24+dfsg1", "ApiVersion": "1.41", "MinAPIVersion": "1.12"})

    async def _list(self, request: web.Request) -> web.Response:
        wanted = json.loads(request.query.get("filters", "{}")).get("label", [])
        found = []
        for container, one in self.containers.items():
            labels = one["Config"]["Labels"]
            if all(labels.get(label.split("=")[0]) == label.split("=", 1)[1] for label in wanted):
                state = one["State"]["Status"]
                if request.query.get("all") == "true" or state == "running":
                    found.append({"Id": container, "Names": [one["Name"]], "Labels": labels, "State": state})
        return web.json_response(found)

    async def _create(self, request: web.Request) -> web.Response:
        body, name = await request.json(), request.query["name"]
        if body["Image"] not in IMAGES:
            return _refusal(404, f"No such image: {body['Image']}")
        holder = next((cid for cid, one in self.containers.items() if one["Name"] == f"/{name}"), None)
        if holder is not None:
            return _refusal(
                409,
                f'Conflict. The container name "/{name}" is already in use by container "{holder}". '
                "You have to remove (or rename) that container to be able to reuse that name.",
            )
        container = f"{len(self.created):064x}"
        self.created.append(container)
        self.containers[container] = {
            "Id": container,
            "Name": f"/{name}",
            "Config": {**body, "Tty": False},
            "HostConfig": body.get("HostConfig") or {},
            "State": {"Status": "created", "Running": False, "ExitCode": 0},
            "NetworkSettings": {"Ports": {}},
        }
        async with self._made:
            self._made.notify_all()
        return web.json_response({"Id": container, "Warnings": []}, status=201)

    async def _start(self, request: web.Request) -> web.Response:
        container, one = self._named(request)
        image, host = one["Config"]["Image"], one["HostConfig"]
        if one["State"]["Running"]:
            return web.Response(status=304)
        if self.refuse_gpus and host.get("DeviceRequests"):
            return _refusal(500, 'could not select device driver "nvidia" with capabilities: [[gpu]]')
        if host.get("NetworkMode") == "nowhere":
            return _refusal(404, "network nowhere not found")
        if image == NO_PROGRAM:
            return _refusal(
                400,
                "failed to create shim task: OCI runtime create failed: runc create failed: unable to start "
                'container process: exec: "tritonserve": executable file not found in $PATH: unknown',
            )
        one["State"] = {"Status": "running", "Running": True, "ExitCode": 0}
        for port in host.get("PortBindings") or {}:
            if image == LISTENS:
                runner = self._sites.setdefault(container, web.AppRunner(_engine()))
                number = await _listen(runner)
                bound = [{"HostIp": "127.0.0.1", "HostPort": str(number)}]
                one["NetworkSettings"]["Ports"][port] = bound
        if image == DIES:
            await self.end(container, 137)
        return web.Response(status=204)

    async def _stop(self, request: web.Request) -> web.Response:
        container, _ = self._named(request)
        await self.end(container, 143)
        return web.Response(status=204)

    async def _delete(self, request: web.Request) -> web.Response:
        container, _ = self._named(request)
        await self._close(container)
        del self.containers[container]
        return web.Response(status=204)

    async def _inspect(self, request: web.Request) -> web.Response:
        return web.json_response(self._named(request)[1])

    async def _logs(self, request: web.Request) -> web.Response:
        self._named(request)
        frames = [
            struct.pack(">BxxxL", 1, len(line)) + line for line in LOG.encode().splitlines(keepends=True)
        ]
        return web.Response(body=b"".join(frames), content_type="application/vnd.docker.raw-stream")

    def _named(self, request: web.Request) -> tuple[str, dict[str, Any]]:
        container = request.match_info["id"]
        if container not in self.containers:
            text = json.dumps({"message": f"No such container: {container}"})
            raise web.HTTPNotFound(text=text, content_type="application/json")
        return container, self.containers[container]

    async def _close(self, container: str) -> None:
        if (site := self._sites.pop(container, None)) is not None:
            await asyncio.shield(site.cleanup())


def _engine() -> web.Application:
    """An OpenAI-HTTP server with the model `m`."""

    async def models(_request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "m", "object": "model"}]})

    app = web.Application()
    app.router.add_get("/v1/models", models)
    return app


async def _listen(runner: web.AppRunner) -> int:
    if runner.server is None:
        await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    return int(runner.addresses[-1][1])


def _refusal(status: int, message: str) -> web.Response:
    return web.json_response({"message": message}, status=status)
