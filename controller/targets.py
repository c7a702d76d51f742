"""Targets: what the deployments ask for, one server at a time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from inference.schema import Schema
from model_registry.entities import Deployment, Endpoint, ServerRef

DEFAULT_CONCURRENCY = 64
"""For servers that do not say how many requests they serve at once."""


@dataclass(frozen=True, slots=True)
class Target:
    """One deployment on one of its servers: an endpoint that should exist."""

    name: str
    """Of the endpoint: `<deployment>@<host:port>`."""
    deployment: Deployment
    server: ServerRef

    @property
    def model_name(self) -> str:
        """The name asked for at the server."""
        return self.deployment.target or self.deployment.model


@dataclass(frozen=True, slots=True)
class Observation:
    """What looks at a target have shown."""

    schema: Schema | None = None
    healthy: bool = False
    failures: int = 0
    """Looks in a row that failed."""
    reason: str | None = None
    """Why it is not healthy."""


def targets(deployments: Iterable[Deployment]) -> dict[str, Target]:
    """Every endpoint that should exist, by name."""
    found = {}
    for deployment in deployments:
        for server in deployment.servers:
            name = f"{deployment.name}@{urlsplit(server.http).netloc.rpartition('@')[2]}"
            found[name] = Target(name, deployment, server)
    return found


def endpoint_of(target: Target, schema: Schema) -> Endpoint:
    """The endpoint as a recognised server offers it, ready."""
    deployment, server = target.deployment, target.server
    values: dict[str, Any] = {
        "name": target.name,
        "deployment": deployment.name,
        "model": deployment.model,
        "profile": deployment.profile,
        "lane": schema.lane,
        "target": schema.target,
        "http": server.http,
        "grpc": server.grpc,
        "metrics": server.metrics,
        "api_key_env": server.api_key_env,
        "transport": deployment.transport,
        "max_concurrency": deployment.max_concurrency or schema.max_concurrency or DEFAULT_CONCURRENCY,
        "server_schema": schema.as_dict(),
        "state": "ready",
    }
    return Endpoint.model_validate(values)


def placeholder(target: Target, reason: str | None) -> Endpoint:
    """An endpoint whose server has not been understood yet: shown, never picked."""
    deployment = target.deployment
    lane = "tensorrt_llm" if deployment.lane == "auto" else deployment.lane
    return Endpoint(
        name=target.name,
        deployment=deployment.name,
        model=deployment.model,
        profile=deployment.profile,
        lane=lane,
        target=target.model_name,
        http=target.server.http,
        state="unhealthy" if reason else "starting",
        reason=reason,
    )
