"""The first key of a registry, written to Redis itself: without one nobody may use the admin API."""

from __future__ import annotations

from pydantic import ValidationError

from enginehouse.errors import CommandError, MachineError
from model_registry.config import RegistryConfig
from model_registry.connection import connect
from model_registry.errors import RegistryUnavailableError
from model_registry.store import RegistryStore
from model_registry.tenants import ApiKey, Tenant
from tenancy.keys import new_key


async def create_first_key(config: RegistryConfig, name: str, tenant: str, admin: bool) -> str:
    """A new API key, in clear; makes its tenant, too, where there is none.

    Raises CommandError for a name that is taken or not allowed, MachineError when Redis cannot be reached.
    """
    clear, digest = new_key()
    try:
        wanted_tenant = Tenant(name=tenant)
        key = ApiKey(name=name, tenant=tenant, sha256=digest, admin=admin)
    except ValidationError as error:
        raise CommandError(f"names of keys and tenants {error.errors()[0]['msg']}") from error
    store = RegistryStore.of(connect(config), config)
    try:
        if await store.get("ApiKey", name) is not None:
            raise CommandError(f"a key named {name!r} exists", "take another name, or delete that one first")
        known = await store.get("Tenant", tenant)
        await store.apply([known or wanted_tenant, key])
    except RegistryUnavailableError as error:
        raise MachineError(
            f"the registry cannot be written: {error}",
            "say where it is: ENGINEHOUSE_REGISTRY__REDIS_URL, or --config FILE",
        ) from error
    finally:
        await store.close()
    return clear
