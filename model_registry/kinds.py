"""Kinds: what the registry stores, what each kind is called, and its JSON document.

A document written by a newer release may hold fields this one does not know: they are ignored when read,
so that releases can run side by side; what people write (manifests) is held to the known fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from pydantic import ValidationError

from model_registry.drains import Drain
from model_registry.engine_specs import EngineSpec
from model_registry.engines import Engine
from model_registry.entities import Adapter, Deployment, Endpoint, Entity, Model, Profile
from model_registry.errors import UnknownKindError
from model_registry.pools import Pool
from model_registry.replicas import Replica, ScalingStatus
from model_registry.rollouts import Rollout, RolloutStatus
from model_registry.snapshot import Stored
from model_registry.tenants import ApiKey, Policy, Tenant

Ref = tuple[str, str]
"""(kind, name)."""

KINDS: Mapping[str, type[Stored]] = MappingProxyType(
    {
        "Model": Model,
        "Deployment": Deployment,
        "Endpoint": Endpoint,
        "Tenant": Tenant,
        "ApiKey": ApiKey,
        "Adapter": Adapter,
        "Policy": Policy,
        "Profile": Profile,
        "EngineSpec": EngineSpec,
        "Engine": Engine,
        "Rollout": Rollout,
        "RolloutStatus": RolloutStatus,
        "Pool": Pool,
        "Replica": Replica,
        "ScalingStatus": ScalingStatus,
        "Drain": Drain,
    }
)
"""The order is that of the scripts' keys (`scripts/prelude.lua`)."""
DECLARED: tuple[str, ...] = (
    "Model",
    "Adapter",
    "EngineSpec",
    "Engine",
    "Pool",
    "Deployment",
    "Rollout",
    "Drain",
    "Profile",
    "Policy",
    "Tenant",
    "ApiKey",
)
"""Kinds that operators, and commands for them, write; the rest is written by the controller."""

_SPELLINGS: Mapping[str, str] = MappingProxyType(
    {spelling: kind for kind in KINDS for spelling in (kind.lower(), f"{kind.lower()}s")}
    | {"key": "ApiKey", "keys": "ApiKey", "api-key": "ApiKey", "api-keys": "ApiKey"}
    | {"api_key": "ApiKey", "api_keys": "ApiKey"}
    | {"policies": "Policy", "engine-spec": "EngineSpec", "engine-specs": "EngineSpec"}
    | {"rollout-status": "RolloutStatus", "rolloutstatuses": "RolloutStatus"}
    | {"scaling": "ScalingStatus", "scaling-status": "ScalingStatus", "scalingstatuses": "ScalingStatus"}
)


def kind_named(spelling: str) -> str:
    """The kind that `spelling` stands for: any case, singular or plural. Raises UnknownKindError."""
    kind = _SPELLINGS.get(spelling.strip().lower())
    if kind is None:
        raise UnknownKindError(spelling, KINDS)
    return kind


def kind_of(item: Stored) -> str:
    """`Model`, `Deployment`, ..."""
    return type(item).__name__


def ref_of(item: Stored) -> Ref:
    """Kind and name."""
    return kind_of(item), item.name


def encode(item: Stored) -> str:
    """The JSON document of `item`; equal items have equal documents."""
    return item.model_dump_json()


def decode(kind: str, document: str) -> Stored:
    """The item in a JSON document. Raises pydantic's ValidationError."""
    entity: type[Entity] = KINDS[kind]
    try:
        item = entity.model_validate_json(document)
    except ValidationError:
        item = entity.model_validate_json(document, extra="ignore")
    assert isinstance(item, Stored)
    return item
