"""The first tenant and keys of a local stack, written to its Redis before anything asks for them."""

from __future__ import annotations

from enginehouse.local.state_dir import Keys
from model_registry.config import RegistryConfig
from model_registry.connection import connect
from model_registry.entities import ApiKey, Tenant
from model_registry.store import RegistryStore
from tenancy.keys import digest

TENANT = "default"


async def seed_keys(redis_url: str, keys: Keys) -> None:
    """Make the stack's API key and admin key known, hashed."""
    client = connect(RegistryConfig(redis_url=redis_url))
    try:
        await RegistryStore(client).apply(
            [
                Tenant(name=TENANT),
                ApiKey(name="local", tenant=TENANT, sha256=digest(keys.api_key)),
                ApiKey(name="local-admin", tenant=TENANT, sha256=digest(keys.admin_key), admin=True),
            ]
        )
    finally:
        await client.aclose()
