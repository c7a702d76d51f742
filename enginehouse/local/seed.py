"""Seed: what a local stack's Redis holds before anything asks for it.

The first tenant and keys; and no deployment of an earlier run, since its servers are gone.
"""

from __future__ import annotations

from collections.abc import Iterable

from enginehouse.local.state_dir import Keys
from model_registry.config import RegistryConfig
from model_registry.connection import connect
from model_registry.entities import Deployment, Endpoint
from model_registry.replicas import Replica
from model_registry.store import RegistryStore
from model_registry.tenants import ApiKey, Tenant
from tenancy.keys import digest

TENANT = "default"


async def seed(redis_url: str, keys: Keys, applied: Iterable[tuple[str, str]]) -> None:
    """Make the stack's keys known, hashed, and forget what an earlier run served.

    `applied`: (kind, name) of what that run had put into the registry.
    """
    client = connect(RegistryConfig(redis_url=redis_url))
    try:
        store = RegistryStore(client)
        await store.apply(
            [
                Tenant(name=TENANT),
                ApiKey(name="local", tenant=TENANT, sha256=digest(keys.api_key)),
                ApiKey(name="local-admin", tenant=TENANT, sha256=digest(keys.admin_key), admin=True),
            ]
        )
        await forget(store, {name for kind, name in applied if kind == "Deployment"})
    finally:
        await client.aclose()


async def forget(store: RegistryStore, deployments: set[str]) -> None:
    """Remove deployments and what hangs on them; those that are gone already are no fault."""
    objects = (await store.contents()).objects.values()
    for item in objects:
        if isinstance(item, Replica) and item.deployment in deployments:
            await store.delete("Replica", item.name)
    for item in objects:
        if isinstance(item, Endpoint) and item.deployment in deployments:
            await store.set_endpoint_state(item.name, "gone")
    for item in objects:
        if isinstance(item, Deployment) and item.name in deployments:
            await store.delete("Deployment", item.name, cascade=True)
