"""Draining: what an operator takes out of service, and when nothing is under way there any more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, NamedTuple

from enginehouse.api import AdminClient
from enginehouse.connection import Connection
from enginehouse.errors import ApiError, CommandError
from enginehouse.manifests import ManifestFile, apply_files
from enginehouse.objects import fetch, remove
from model_registry.drains import Drain, name_of
from model_registry.manifests import to_yaml

POLL_S = 0.5
_SEEN_S = 1.0
"""How long gateways may take to hear that an endpoint drains; what they report later than that counts."""
_NOTICED_S = 30.0
"""How long a leading controller may take to act on a drain."""

Tell = Callable[[str], None]


class Target(NamedTuple):
    """What is drained."""

    drain: Drain
    endpoints: Sequence[dict[str, Any]]
    """That it covers, as the registry has them."""

    @property
    def what(self) -> str:
        """As the operator names it."""
        return self.drain.server or str(self.drain.endpoint)


async def find(connection: Connection, target: str, reason: str) -> Target:
    """The endpoint or server called `target`. Raises CommandError where there is none."""
    endpoints = (await fetch(connection, "Endpoint")).items
    if any(one["name"] == target for one in endpoints):
        drain = Drain(name=name_of(target), endpoint=target, reason=reason)
    else:
        server = await _server(connection, target, endpoints)
        drain = Drain(name=name_of(server), server=server, reason=reason)
    return Target(drain, [one for one in endpoints if drain.covers(one["name"], one["http"])])


async def _server(connection: Connection, target: str, endpoints: Sequence[dict[str, Any]]) -> str:
    """Its URL, as it is registered: an endpoint's, or of a deployment or pool that has none there yet."""
    known = [one["http"] for one in endpoints]
    for deployment in (await fetch(connection, "Deployment")).items:
        known += [server["http"] for server in deployment["servers"]]
    for pool in (await fetch(connection, "Pool")).items:
        known += [server["http"] for server in pool["actuator"].get("servers", ())]
    wanted = target.rstrip("/")
    for url in map(str, known):
        if wanted in (url.rstrip("/"), url.rstrip("/").split("://")[-1]):
            return url
    raise CommandError(
        f"there is no endpoint and no server {target!r}",
        "endpoints: " + (", ".join(sorted(one["name"] for one in endpoints)) or "none")
        + "\nservers: " + (", ".join(sorted(set(known))) or "none"),
    )  # fmt: skip


async def drain(connection: Connection, target: Target) -> None:
    """Let no new requests go there."""
    await apply_files(connection, [ManifestFile("drain", to_yaml([target.drain]))], dry_run=False)


async def undo(connection: Connection, target: Target) -> bool:
    """Let requests go there again; whether it was drained."""
    try:
        await remove(connection, "Drain", target.drain.name, cascade=False)
    except ApiError as error:
        if error.status == 404:
            return False
        raise
    return True


async def until_empty(connection: Connection, target: Target, timeout_s: float, tell: Tell) -> None:
    """Return when no gateway has a request under way there. Raises CommandError when that takes too long.

    A gateway that cannot reach Redis tells nothing, and may still send requests by what it knew last.
    """
    names, began_s, told = [one["name"] for one in target.endpoints], monotonic(), ""
    drained_at: float | None = None
    async with AdminClient(connection) as api:
        while True:
            demand = await api.get("demand")
            states = {one["name"]: one["state"] for one in (await api.get("objects/endpoint"))["items"]}
            left = [name for name in names if states.get(name, "gone") not in {"draining", "gone"}]
            if left:
                drained_at = None
                if monotonic() - began_s > _NOTICED_S:
                    raise CommandError(
                        f"no controller has acted on the drain of {target.what} within {_NOTICED_S:g} s",
                        "is one running? `enginehouse controller`; the drain stays in the registry",
                    )
            elif drained_at is None:
                drained_at = demand["at_s"]
            under_way = sum(demand["endpoints"].get(name, {}).get("requests", 0) for name in names)
            if drained_at is not None and under_way == 0 and _is_news(demand, drained_at):
                return
            if (now := _said(target, left, under_way)) != told:
                tell(now)
                told = now
            if monotonic() - began_s > timeout_s:
                raise CommandError(
                    f"{under_way} requests are still under way at {target.what} after {timeout_s:g} s",
                    "give them longer (--timeout); the drain stays in the registry",
                )
            await asyncio.sleep(POLL_S)


def _is_news(demand: dict[str, Any], drained_at: float) -> bool:
    """Whether every report was made when its gateway knew that the endpoint drains."""
    age_s = demand["age_s"]
    return age_s is not None and demand["at_s"] - age_s >= drained_at + _SEEN_S


def _said(target: Target, left: Sequence[str], under_way: int) -> str:
    if left:
        return f"{target.what}: waiting for the controller"
    return f"{target.what}: {under_way} {'request' if under_way == 1 else 'requests'} under way"
