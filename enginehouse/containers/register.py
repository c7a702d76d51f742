"""`python -m enginehouse.containers.register URL MANIFEST…`: the keys and models of a new stack.

Writes the first tenant and keys to the settings' Redis, applies the manifests through the gateway, and ends
once every model answers, with the key to use at URL. May run again at any time: keys that are there stay.
"""

from __future__ import annotations

import asyncio
import sys

from enginehouse.connection import Connection, locate
from enginehouse.errors import CommandError, MachineError, report
from enginehouse.local.ready import each_answers
from enginehouse.manifests import ManifestFile, apply_files, read_manifests
from enginehouse.settings import load
from model_registry.config import RegistryConfig
from model_registry.connection import connect
from model_registry.entities import Deployment, Modality
from model_registry.errors import RegistryUnavailableError
from model_registry.manifests import parse_manifests
from model_registry.snapshot import Snapshot
from model_registry.store import RegistryStore
from model_registry.tenants import ApiKey, Tenant
from tenancy.keys import digest

TENANT = "default"
USAGE = "python -m enginehouse.containers.register URL MANIFEST…"


async def register(
    config: RegistryConfig, connection: Connection, api_key: str, admin_key: str, files: list[ManifestFile]
) -> None:
    """Raises CommandError that says what is in the way."""
    store = RegistryStore.of(connect(config), config)
    try:
        await _seed(store, api_key, admin_key)
        for change in await apply_files(connection, files, dry_run=False):
            sys.stdout.write(f"{change.shown(False)}\n")
        names = _names(files, await store.load())
    except RegistryUnavailableError as error:
        raise MachineError(f"the registry cannot be used: {error}", "is Redis up?") from error
    finally:
        await store.close()
    await each_answers(connection, names)


async def _seed(store: RegistryStore, api_key: str, admin_key: str) -> None:
    wanted: list[Tenant | ApiKey] = [
        Tenant(name=TENANT),
        ApiKey(name="first", tenant=TENANT, sha256=digest(api_key)),
        ApiKey(name="first-admin", tenant=TENANT, sha256=digest(admin_key), admin=True),
    ]
    missing = [item for item in wanted if await store.get(type(item).__name__, item.name) is None]
    if missing:
        await store.apply(missing)


def _names(files: list[ManifestFile], registry: Snapshot) -> dict[str, Modality]:
    """Each model of the files under each profile that it is deployed with, and what it does."""
    items = parse_manifests([(file.name, file.text) for file in files], registry=registry)
    deployments = [item for item in items if isinstance(item, Deployment)]
    return {f"{item.model}:{item.profile}": registry.models[item.model].modality for item in deployments}


def main() -> int:
    """0 when every model answers."""
    try:
        if len(sys.argv) < 3:
            raise CommandError("a URL and at least one manifest are wanted", USAGE)
        connection = locate()
        api_key, admin_key = connection.api_key, connection.admin_key
        if api_key is None or admin_key is None:
            raise CommandError(
                "the first keys are not known",
                "set ENGINEHOUSE_API_KEY_FILE and ENGINEHOUSE_ADMIN_KEY_FILE",
            )
        files = read_manifests(sys.argv[2:])
        asyncio.run(register(load().settings.registry, connection, api_key, admin_key, files))
    except CommandError as error:
        report(error)
        return error.exit_code
    sys.stdout.write(f"every model answers at {sys.argv[1]}/v1\nkey: {api_key}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
