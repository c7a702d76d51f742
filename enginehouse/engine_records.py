"""Engines in the registry: what it knows of them, and what a command writes there."""

from __future__ import annotations

import json
from dataclasses import dataclass

from enginehouse.api import AdminClient
from enginehouse.connection import Connection
from enginehouse.errors import ApiError, CommandError
from enginehouse.manifests import ManifestFile, apply_files
from enginehouse.objects import fetch
from model_registry.engines import Engine, PreflightRecord
from model_registry.entities import Deployment
from model_registry.kinds import decode
from model_registry.manifests import to_yaml


@dataclass(frozen=True, slots=True)
class Known:
    """What the registry holds that has to do with engines."""

    engines: dict[str, Engine]
    deployments: tuple[Deployment, ...]

    def of(self, engine: str) -> list[Deployment]:
        """The deployments that name an engine."""
        return [one for one in self.deployments if one.engine == engine]


async def known(connection: Connection) -> Known:
    """Engines and deployments. Raises ApiError where the gateway cannot be asked."""
    engines, deployments = await fetch(connection, "Engine"), await fetch(connection, "Deployment")
    found = [decode("Engine", json.dumps(item)) for item in engines.items]
    served = [decode("Deployment", json.dumps(item)) for item in deployments.items]
    return Known(
        {one.name: one for one in found if isinstance(one, Engine)},
        tuple(one for one in served if isinstance(one, Deployment)),
    )


async def known_if_any(connection: Connection | None) -> Known | None:
    """As `known`; None where no gateway is known or none answers."""
    if connection is None or connection.admin_key is None:
        return None
    try:
        return await known(connection)
    except ApiError:
        return None


async def engine_named(connection: Connection, name: str) -> Engine:
    """One engine's record. Raises CommandError for one that is not there."""
    try:
        answer = await fetch(connection, "Engine", name)
    except ApiError as error:
        if error.status != 404:
            raise
        raise CommandError(
            f"{name!r} is neither a folder nor an engine of the registry",
            "`enginehouse engines list` shows the engines",
        ) from error
    found = decode("Engine", json.dumps(answer.items[0]))
    assert isinstance(found, Engine)
    return found


async def put(connection: Connection, engine: Engine) -> None:
    """Store an engine's record, new or changed."""
    await apply_files(connection, [ManifestFile(f"engine {engine.name}", to_yaml([engine]))], dry_run=False)


async def write_preflight(connection: Connection, name: str, record: PreflightRecord) -> None:
    """Put the record of a preflight into the engine's; what else was found about it stays."""
    engine = await engine_named(connection, name)
    await put(connection, engine.model_copy(update={"preflight": record}))


async def forget(connection: Connection, name: str) -> None:
    """Delete an engine's record, where there is one."""
    async with AdminClient(connection) as api:
        try:
            await api.delete(f"objects/Engine/{name}")
        except ApiError as error:
            if error.status != 404:
                raise
