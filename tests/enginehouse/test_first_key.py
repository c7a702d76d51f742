"""The first key reaches a registry that no gateway has written to."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from enginehouse.errors import CommandError, MachineError
from enginehouse.first_key import create_first_key
from model_registry.config import RegistryConfig
from model_registry.store import RegistryStore
from model_registry.tenants import Tenant
from tenancy.keys import authenticate
from tests.command_line import run_here
from tests.model_registry.conftest import RedisServer, config, redis_client, redis_server, store

__all__ = ["config", "redis_client", "redis_server", "store"]


async def test_the_first_key_lets_its_owner_in(store: RegistryStore, config: RegistryConfig) -> None:
    """With its tenant, which nobody had made."""
    clear = await create_first_key(config, "operator", "operators", admin=True)
    identity = authenticate(await store.load(), f"Bearer {clear}")
    assert (identity.tenant.name, identity.key_name, identity.admin) == ("operators", "operator", True)


async def test_a_tenant_that_exists_stays_as_it_is(store: RegistryStore, config: RegistryConfig) -> None:
    """Its weight and its models are not reset."""
    tenant = Tenant(name="operators", weight=3.0, allowed_models=("m",))
    await store.apply([tenant])
    await create_first_key(config, "operator", "operators", admin=False)
    assert await store.get("Tenant", "operators") == tenant


async def test_a_key_is_never_replaced(store: RegistryStore, config: RegistryConfig) -> None:
    """Whoever has it would be locked out."""
    await create_first_key(config, "operator", "operators", admin=True)
    before = await store.get("ApiKey", "operator")
    with pytest.raises(CommandError, match="a key named 'operator' exists"):
        await create_first_key(config, "operator", "operators", admin=True)
    assert await store.get("ApiKey", "operator") == before


async def test_names_that_cannot_be_are_refused(config: RegistryConfig) -> None:
    """With what they may look like."""
    with pytest.raises(CommandError, match="should match pattern"):
        await create_first_key(config, "my key", "operators", admin=True)


async def test_without_redis_the_way_to_it_is_told(redis_server: RedisServer, config: RegistryConfig) -> None:
    """One sentence and what to set."""
    redis_server.kill()
    with pytest.raises(MachineError, match="cannot be reached") as caught:
        await create_first_key(config, "operator", "operators", admin=True)
    assert "ENGINEHOUSE_REGISTRY__REDIS_URL" in str(caught.value.remedy)


async def test_the_command_of_the_readme(store: RegistryStore, redis_server: RedisServer) -> None:
    """As it stands there, with the Redis named by a variable."""
    (command,) = re.findall(r"enginehouse (keys create .*--direct)", Path("README.md").read_text())
    variables = {"ENGINEHOUSE_REGISTRY__REDIS_URL": redis_server.url, "ENGINEHOUSE_REGISTRY__NAME": "test"}
    done = await asyncio.to_thread(run_here, *command.split(), **variables)
    assert authenticate(await store.load(), f"Bearer {done.stdout.strip()}").admin
