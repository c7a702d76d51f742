"""Settings of the registry: where Redis is, how long to wait for it, how long endpoints live unrenewed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from model_registry.redis_address import RedisAddress


def _address(url: str) -> str:
    RedisAddress.of(url)
    return url


RedisUrl = Annotated[str, StringConstraints(pattern=r"^\S+://\S+$"), AfterValidator(_address)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]


class RegistryConfig(BaseModel):
    """The registry as one process sees it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    redis_url: RedisUrl = "redis://127.0.0.1:6379/0"
    """`redis://`, `unix://`, `redis+sentinel://host,host/service` or `redis+cluster://host,host`; `rediss`
    for TLS; with user and password if Redis asks for them (`model_registry.redis_address`)."""
    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")] = "default"
    """Hash tag of every key, so that several registries can share one Redis."""
    endpoint_ttl_s: Seconds = 10.0
    """How long an endpoint outlives its last renewal by a controller, by Redis time."""
    snapshot_path: Path | None = None
    """File that keeps the last snapshot over restarts; None: a restart needs Redis to know any model."""
    connect_timeout_s: Seconds = 1.0
    command_timeout_s: Seconds = 2.0
    """How long a silent Redis is waited for before it counts as away."""
    block_s: Seconds = 1.0
    """How long the watcher waits for a push before it checks that it has missed nothing."""
    backoff_max_s: Seconds = 2.0
    """Longest pause between attempts to reach Redis again."""
    max_changes: Annotated[int, Field(gt=0)] = 4096
    """Change records kept; a watcher further behind loads everything anew."""
    max_versions: Annotated[int, Field(ge=2, le=100)] = 10
    """Versions kept of each declared object, to be brought back by `enginehouse rollback`."""
