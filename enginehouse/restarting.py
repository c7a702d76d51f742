"""Restarting: the servers of a fleet, one after the other, without a request that is dropped.

Each is drained, restarted when nothing is under way there, and waited for until it serves what it served.
The first trouble stops it: what has not been restarted by then stays as it is.
"""

from __future__ import annotations

import asyncio
import shlex
from collections import Counter
from collections.abc import Sequence
from time import monotonic
from typing import Any, NamedTuple

from controller.actuators.words import filled, words_of_server
from enginehouse.api import AdminClient
from enginehouse.connection import Connection
from enginehouse.draining import POLL_S, Target, Tell, drain, find, undo, until_empty
from enginehouse.errors import CommandError
from enginehouse.objects import fetch

REASON = "rolling restart"


class Patience(NamedTuple):
    """How long each step of one server may take, in seconds."""

    drain_s: float
    ready_s: float
    """From the command's end until the server serves again; also for room on the other servers."""


class Server(NamedTuple):
    """One that is to be restarted, and how."""

    url: str
    command: Sequence[str]

    def filled(self) -> list[str]:
        """The command for this server."""
        words = words_of_server(self.url)
        return [filled(part, words) for part in self.command]


async def servers_of(connection: Connection, targets: Sequence[str], command: str | None) -> list[Server]:
    """The servers of pools and those named by URL, in order. Raises CommandError."""
    given = shlex.split(command) if command is not None else None
    pools = {pool["name"]: pool["actuator"] for pool in (await fetch(connection, "Pool")).items}
    found: dict[str, Server] = {}
    for target in targets:
        actuator = pools.get(target)
        if actuator is not None and actuator["type"] != "triton":
            raise CommandError(
                f"the pool {target!r} is of type {actuator['type']}: its replicas have servers of their own",
                "name those to restart by their URLs",
            )
        if actuator is not None:
            urls = [(server["http"], actuator["recycle"]) for server in actuator["servers"]]
        else:
            url = (await find(connection, target, REASON)).drain.server
            if url is None:
                raise CommandError(f"{target!r} is an endpoint", "name its server, or a pool")
            urls = [(url, _recycle(pools, url))]
        for url, recycle in urls:
            how = given or recycle
            if not how:
                raise CommandError(
                    f"how {url} is restarted is not known",
                    "give --command, where {http} stands for its URL, or `recycle` in its pool",
                )
            found[url] = Server(url, how)
    return list(found.values())


async def restart(
    connection: Connection, servers: Sequence[Server], patience: Patience, tell: Tell, *, force: bool = False
) -> None:
    """Restart them one by one. `force`: also where a model is served nowhere else. Raises CommandError."""
    for number, server in enumerate(servers, 1):
        tell(f"[{number}/{len(servers)}] {server.url}")
        try:
            await _one(connection, server, patience, tell, force)
        except CommandError as error:
            left = len(servers) - number
            rest = f"; {left} more not begun" if left else ""
            raise CommandError(f"stopped at {server.url}: {error.message}{rest}", error.remedy) from error


async def _one(connection: Connection, server: Server, patience: Patience, tell: Tell, force: bool) -> None:
    target = await find(connection, server.url, REASON)
    drains = {item["name"] for item in (await fetch(connection, "Drain")).items}
    served = [one for one in target.endpoints if one["state"] == "ready"]
    before = await _ready(connection, served)
    if not force:
        await _until_others_have_room(connection, target, served, patience.ready_s, tell)
    keeps = target.drain.name in drains
    try:
        if not keeps:
            await drain(connection, target)
        await until_empty(connection, target, patience.drain_s, tell)
    except BaseException:
        if not keeps:
            await undo(connection, target)
            tell(f"{server.url}: not restarted; it takes requests again")
        raise
    await _run(server, tell)
    if keeps:
        tell(f"{server.url}: restarted; it was drained before and stays so")
        return
    await undo(connection, target)
    await _until_ready(connection, server, served, before, patience.ready_s, tell)


async def _until_others_have_room(
    connection: Connection, target: Target, served: Sequence[dict[str, Any]], within_s: float, tell: Tell
) -> None:
    """Return when the other endpoints of its models can take what is under way and waits."""
    began_s, told = monotonic(), ""
    own = {one["name"] for one in target.endpoints}
    async with AdminClient(connection) as api:
        while True:
            demand, lacking = await api.get("demand"), []
            endpoints = (await api.get("objects/endpoint"))["items"]
            for model in sorted({one["model"] for one in served}):
                others = [
                    one
                    for one in endpoints
                    if one["model"] == model and one["state"] == "ready" and one["name"] not in own
                ]
                if not others:
                    raise CommandError(
                        f"the model {model!r} has no other endpoint that is ready",
                        "add one first, or give --force: its requests then wait for the restart, or fail",
                    )
                slots = sum(one["max_concurrency"] for one in others)
                if (needed := _load(demand, endpoints, model)) > slots:
                    lacking.append(f"{model} needs {needed} slots, the others have {slots}")
            if not lacking:
                return
            if (now := f"{target.what}: waiting for room elsewhere: {'; '.join(lacking)}") != told:
                tell(now)
                told = now
            if monotonic() - began_s > within_s:
                raise CommandError(f"no room for its requests elsewhere: {'; '.join(lacking)}")
            await asyncio.sleep(POLL_S)


def _load(demand: dict[str, Any], endpoints: Sequence[dict[str, Any]], model: str) -> int:
    """Requests of a model that are under way or wait."""
    at = (demand["endpoints"].get(one["name"], {}) for one in endpoints if one["model"] == model)
    groups = demand["groups"].items()
    waiting = sum(group["waiting"] for name, group in groups if name.rpartition(":")[0] == model)
    return int(waiting + sum(one.get("requests", 0) for one in at))


async def _run(server: Server, tell: Tell) -> None:
    """Restart it. Raises CommandError."""
    command = server.filled()
    tell(f"{server.url}: {shlex.join(command)}")
    try:
        process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.DEVNULL)
    except OSError as error:
        raise CommandError(
            f"{command[0]} cannot be run: {error.strerror}", f"{server.url} stays drained"
        ) from error
    try:
        status = await process.wait()
    except asyncio.CancelledError:
        process.terminate()
        await process.wait()
        tell(_stays_drained(server))
        raise
    if status != 0:
        raise CommandError(
            f"{shlex.join(command)} ended with status {status}",
            _stays_drained(server),
        )


def _stays_drained(server: Server) -> str:
    return f"{server.url} stays drained; when it is well: enginehouse drain {server.url} --undo"


async def _ready(connection: Connection, served: Sequence[dict[str, Any]]) -> Counter[str]:
    """Endpoints that are ready of the deployments of `served`, by deployment."""
    deployments = {one["deployment"] for one in served}
    endpoints = (await fetch(connection, "Endpoint")).items
    return Counter(
        one["deployment"] for one in endpoints if one["state"] == "ready" and one["deployment"] in deployments
    )


async def _until_ready(
    connection: Connection,
    server: Server,
    served: Sequence[dict[str, Any]],
    before: Counter[str],
    within_s: float,
    tell: Tell,
) -> None:
    """Return when each deployment has as many endpoints again as before."""
    began_s = monotonic()
    tell(f"{server.url}: waiting until it serves again")
    while lacking := before - await _ready(connection, served):
        if monotonic() - began_s > within_s:
            names = ", ".join(sorted(lacking))
            raise CommandError(
                f"after {within_s:g} s these have fewer endpoints than before: {names}",
                "`enginehouse get endpoints` says why",
            )
        await asyncio.sleep(POLL_S)
    tell(f"{server.url}: serves again after {monotonic() - began_s:.1f} s")


def _recycle(pools: dict[str, dict[str, Any]], url: str) -> Sequence[str]:
    """How the pool that a server is of restarts it."""
    for actuator in pools.values():
        if any(server["http"] == url for server in actuator.get("servers", ())):
            return list(actuator["recycle"])
    return ()
