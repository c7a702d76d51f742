"""What an earlier run of a local stack has served is forgotten when it starts again."""

from __future__ import annotations

from enginehouse.local.seed import forget
from model_registry.entities import Deployment, Endpoint, Model, ServerRef
from model_registry.rollouts import Rollout
from model_registry.store import RegistryStore
from tests.model_registry.conftest import config, redis_client, redis_server, store

__all__ = ["config", "redis_client", "redis_server", "store"]


async def test_a_rollout_of_an_earlier_run_is_not_in_the_way(store: RegistryStore) -> None:
    """What operators have applied besides stays."""
    deployed = {"model": "m", "servers": (ServerRef(http="http://127.0.0.1:1"),)}
    await store.apply(
        [
            Model(name="m", context_length=100),
            Deployment(name="own", **deployed),
            Deployment(name="candidate", weight=0, **deployed),
            Rollout(name="r", model="m", stable="own", candidate="candidate"),
        ]
    )
    endpoint = Endpoint(
        name="own@127.0.0.1:1", deployment="own", model="m", profile="balanced", lane="tensorrt_llm",
        target="m", http="http://127.0.0.1:1", state="ready",
    )  # fmt: skip
    await store.register_endpoint(endpoint, ttl_s=60)
    await forget(store, {"own", "gone already"})
    left = await store.load()
    assert [one.name for one in left.deployments["m"]] == ["candidate"]
    assert (left.rollouts, left.endpoints) == ({}, {})
