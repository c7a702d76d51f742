"""Desired: the endpoints that deployments ask for, one per server or replica of each. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Protocol
from urllib.parse import urlsplit

from controller.engines import refusal
from model_registry.drains import Drain
from model_registry.engines import Engine
from model_registry.entities import Deployment, Endpoint, LaneName, Model, ServerRef
from model_registry.replicas import Replica

DEFAULT_CONCURRENCY = 64
"""For engines that do not say how many requests they run at once."""

COMPARED = (
    "model",
    "profile",
    "asked_target",
    "http",
    "grpc",
    "metrics",
    "api_key_env",
    "kv_events",
    "transport",
    "labels",
    "weight",
    "card",
)
"""Fields that an endpoint takes over from its deployment as they are."""


class Schema(Protocol):
    """What introspection recognises; `inference.schema.Schema` is one."""

    @property
    def lane(self) -> LaneName: ...
    @property
    def target(self) -> str: ...
    @property
    def max_concurrency(self) -> int | None: ...
    @property
    def emulated(self) -> bool: ...
    def as_dict(self) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Desired:
    """One server of one deployment."""

    deployment: Deployment
    server: ServerRef
    engine: Engine | None = None
    """What the registry knows of the engine that the deployment names."""
    embeds: bool = False
    """Its model makes vectors."""
    drained: str | None = None
    """Why an operator lets it have no new requests; None: it may."""

    @property
    def name(self) -> str:
        """`<deployment>@<host>:<port>`."""
        return endpoint_name(self.deployment.name, self.server)

    @property
    def target(self) -> str:
        """What the deployment calls on the server."""
        return self.deployment.target or self.deployment.model

    def refusal(self, schema: Schema | None, present: Endpoint | None) -> str | None:
        """Why it may not be ready, whatever its health; by what was seen now, else when it was registered."""
        emulated: bool | None = None
        if schema is not None:
            emulated = schema.emulated
        elif present is not None and present.server_schema:
            emulated = present.server_schema.get("emulated")
        return refusal(self.deployment.engine, self.engine, emulated)

    def endpoint(self, schema: Schema | None = None) -> Endpoint:
        """The endpoint to register. Before its schema is recognised, what the deployment says stands in."""
        deployment, server = self.deployment, self.server
        stand_in: LaneName = "tensorrt_llm" if deployment.lane == "auto" else deployment.lane
        engine_limit = None if schema is None else schema.max_concurrency
        card = deployment.card
        carded = None if card is None else card.slots
        return Endpoint(
            name=self.name,
            deployment=deployment.name,
            model=deployment.model,
            profile=deployment.profile,
            lane=stand_in if schema is None else schema.lane,
            target=self.target if schema is None else schema.target,
            asked_target=self.target,
            http=server.http,
            grpc=server.grpc,
            metrics=server.metrics,
            api_key_env=server.api_key_env,
            kv_events=deployment.kv_events,
            transport=deployment.transport,
            labels=deployment.labels,
            weight=deployment.weight,
            card=card,
            max_concurrency=deployment.max_concurrency or engine_limit or carded or DEFAULT_CONCURRENCY,
            server_schema={} if schema is None else self._described(schema),
        )

    def _described(self, schema: Schema) -> dict[str, Any]:
        described, block = schema.as_dict(), self.deployment.tokens_per_block
        return described if block is None else {**described, "tokens_per_block": block}

    def is_met_by(self, endpoint: Endpoint) -> bool:
        """Whether a registered endpoint, its schema known, is what the deployment asks for by now."""
        if not endpoint.server_schema or self.deployment.lane not in {"auto", endpoint.lane}:
            return False
        limit = self.deployment.max_concurrency
        if limit is not None and limit != endpoint.max_concurrency:
            return False
        block = self.deployment.tokens_per_block
        if block is not None and block != endpoint.server_schema.get("tokens_per_block"):
            return False
        asked, got = self.endpoint(), endpoint
        return all(getattr(asked, field) == getattr(got, field) for field in COMPARED)


def endpoint_name(deployment: str, server: ServerRef) -> str:
    """`<deployment>@<host>:<port>`."""
    parts = urlsplit(server.http)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{deployment}@{host}:{port}{parts.path.rstrip('/')}"


NO_ENGINES: Mapping[str, Engine] = MappingProxyType({})
NO_MODELS: Mapping[str, Model] = MappingProxyType({})
NO_DRAINS: Sequence[Drain] = ()
NO_REPLICAS: Mapping[str, Sequence[Replica]] = MappingProxyType({})


def desired_endpoints(
    deployments: Iterable[Deployment],
    engines: Mapping[str, Engine] = NO_ENGINES,
    replicas: Mapping[str, Sequence[Replica]] = NO_REPLICAS,
    drains: Iterable[Drain] = NO_DRAINS,
    models: Mapping[str, Model] = NO_MODELS,
) -> dict[str, Desired]:
    """By endpoint name; `engines`, `replicas` (by deployment), `drains` and `models`: the registry's.

    A replica counts from when it is known where it listens until it drains.
    """
    wanted = (
        Desired(deployment, server, engines.get(deployment.engine or ""), _embeds(models, deployment))
        for deployment in deployments
        for server in (*deployment.servers, *_servers(replicas.get(deployment.name, ())))
    )
    drains = list(drains)
    return {one.name: _drained(one, drains) if drains else one for one in wanted}


def _embeds(models: Mapping[str, Model], deployment: Deployment) -> bool:
    model = models.get(deployment.model)
    return model is not None and model.modality == "embedding"


def _drained(wanted: Desired, drains: Iterable[Drain]) -> Desired:
    reasons = (drain.reason for drain in drains if drain.covers(wanted.name, wanted.server.http))
    return replace(wanted, drained=next(reasons, None))


def _servers(replicas: Sequence[Replica]) -> Iterator[ServerRef]:
    for replica in replicas:
        if replica.server is not None and replica.state in {"starting", "ready"}:
            yield replica.server
