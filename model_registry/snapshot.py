"""Snapshot: an immutable, numbered view of the registry, indexed for the hot path.

Look-ups never wait, and a snapshot never changes while a request holds it: a newer one replaces the
reference.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeVar

from model_registry.drains import Drain
from model_registry.engine_specs import EngineSpec
from model_registry.engines import Engine
from model_registry.entities import Adapter, Deployment, Endpoint, Entity, Model, Profile
from model_registry.knobs import Knobs, knobs_of
from model_registry.pools import Pool
from model_registry.replicas import Replica, ScalingStatus
from model_registry.rolling import Rolling, rolling_of
from model_registry.rollouts import Rollout, RolloutStatus
from model_registry.tenants import ApiKey, Policy, Tenant

Stored = (
    Model
    | Adapter
    | Deployment
    | Endpoint
    | Tenant
    | ApiKey
    | Policy
    | Profile
    | EngineSpec
    | Engine
    | Rollout
    | RolloutStatus
    | Pool
    | Replica
    | ScalingStatus
    | Drain
)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything the registry held at `version`; build one with `Snapshot.of`."""

    version: int
    models: Mapping[str, Model]
    """By name."""
    aliases: Mapping[str, str]
    """Alias -> model name; a model's own name wins over an alias."""
    deployments: Mapping[str, tuple[Deployment, ...]]
    """By model name."""
    endpoints: Mapping[str, tuple[Endpoint, ...]]
    """By model name, every state, ordered by endpoint name."""
    lanes: Mapping[str, frozenset[str]]
    """By model name, those of its endpoints that take traffic; where there is none, those that its scaled
    deployments name."""
    tenants: Mapping[str, Tenant]
    keys: Mapping[str, ApiKey]
    """By hex SHA-256 of the key."""
    adapters: Mapping[str, Adapter]
    """By `model+adapter`."""
    adapter_aliases: Mapping[str, Adapter]
    policies: Mapping[str, Policy]
    profiles: Mapping[str, Profile]
    """Declared ones; see `knobs`."""
    engine_specs: Mapping[str, EngineSpec]
    engines: Mapping[str, Engine]
    rollouts: Mapping[str, Rollout]
    rollout_statuses: Mapping[str, RolloutStatus]
    rolling: Mapping[str, Rolling]
    """By model name: its rollout that is under way."""
    pools: Mapping[str, Pool]
    replicas: Mapping[str, tuple[Replica, ...]]
    """By deployment, every state."""
    scaling: Mapping[str, ScalingStatus]
    """By deployment."""
    drains: Mapping[str, Drain]
    stale: bool = False
    """Nothing is known yet, neither from the registry nor from a cache; an empty stand-in."""

    @classmethod
    def of(cls, version: int, objects: Iterable[Stored], *, stale: bool = False) -> Snapshot:
        """Index `objects`, in the order of their names."""
        models: dict[str, Model] = {}
        deployments: defaultdict[str, list[Deployment]] = defaultdict(list)
        endpoints: defaultdict[str, list[Endpoint]] = defaultdict(list)
        tenants: dict[str, Tenant] = {}
        keys: dict[str, ApiKey] = {}
        adapters: dict[str, Adapter] = {}
        policies: dict[str, Policy] = {}
        profiles: dict[str, Profile] = {}
        items = sorted(objects, key=lambda item: item.name)
        rollouts = {item.name: item for item in items if isinstance(item, Rollout)}
        statuses = {item.name: item for item in items if isinstance(item, RolloutStatus)}
        replicas: defaultdict[str, list[Replica]] = defaultdict(list)
        for item in items:
            match item:
                case Model():
                    models[item.name] = item
                case Deployment():
                    deployments[item.model].append(item)
                case Endpoint():
                    endpoints[item.model].append(item)
                case Tenant():
                    tenants[item.name] = item
                case ApiKey():
                    keys[item.sha256] = item
                case Adapter():
                    adapters[item.full_name] = item
                case Policy():
                    policies[item.name] = item
                case Profile():
                    profiles[item.name] = item
                case Replica():
                    replicas[item.deployment].append(item)
        return cls(
            version=version,
            models=MappingProxyType(models),
            aliases=MappingProxyType({a: m.name for m in models.values() for a in m.aliases}),
            deployments=_groups(deployments),
            endpoints=_groups(endpoints),
            lanes=MappingProxyType(_lanes(endpoints, deployments)),
            tenants=MappingProxyType(tenants),
            keys=MappingProxyType(keys),
            adapters=MappingProxyType(adapters),
            adapter_aliases=MappingProxyType({a: item for item in adapters.values() for a in item.aliases}),
            policies=MappingProxyType(policies),
            profiles=MappingProxyType(profiles),
            engine_specs=_of_kind(EngineSpec, items),
            engines=_of_kind(Engine, items),
            rollouts=MappingProxyType(rollouts),
            rollout_statuses=MappingProxyType(statuses),
            rolling=MappingProxyType(rolling_of(statuses.values(), endpoints)),
            pools=_of_kind(Pool, items),
            replicas=_groups(replicas),
            scaling=_of_kind(ScalingStatus, items),
            drains=_of_kind(Drain, items),
            stale=stale,
        )

    def model(self, name: str) -> Model | None:
        """The model that `name` or its alias stands for; profile suffixes are the router's business."""
        found = self.models.get(name)
        if found is None and (target := self.aliases.get(name)) is not None:
            found = self.models.get(target)
        return found

    def adapter(self, name: str) -> Adapter | None:
        """The adapter that `model+adapter`, with any name of the model, or an alias of its own stands for."""
        found = self.adapters.get(name) or self.adapter_aliases.get(name)
        if found is None and "+" in name:
            base, _, own_name = name.partition("+")
            model = self.models.get(self.aliases.get(base, base))
            found = None if model is None else self.adapters.get(f"{model.name}+{own_name}")
        return found

    def knobs(self, profile: str) -> Knobs:
        """What a profile sets: as declared, else as built in, else as `balanced`."""
        return self.profiles.get(profile) or knobs_of(profile)

    def objects(self) -> Iterator[Stored]:
        """Everything in it, kind by kind."""
        yield from self.models.values()
        for deployments in self.deployments.values():
            yield from deployments
        for endpoints in self.endpoints.values():
            yield from endpoints
        yield from self.tenants.values()
        yield from self.keys.values()
        yield from self.adapters.values()
        yield from self.policies.values()
        yield from self.profiles.values()
        yield from self.engine_specs.values()
        yield from self.engines.values()
        yield from self.rollouts.values()
        yield from self.rollout_statuses.values()
        yield from self.pools.values()
        for replicas in self.replicas.values():
            yield from replicas
        yield from self.scaling.values()
        yield from self.drains.values()


def _lanes(
    endpoints: Mapping[str, Iterable[Endpoint]], deployments: Mapping[str, Iterable[Deployment]]
) -> dict[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {
        model: frozenset(one.lane for one in group if one.weight) for model, group in endpoints.items()
    }
    for model, wanted in deployments.items():
        if not found.get(model):
            named = (one.lane for one in wanted if one.scaling is not None and one.weight)
            found[model] = frozenset(lane for lane in named if lane != "auto")
    return found


Kind = TypeVar("Kind", bound=Entity)
Named = TypeVar("Named", Deployment, Endpoint, Replica)


def _of_kind(kind: type[Kind], items: Iterable[Stored]) -> Mapping[str, Kind]:
    return MappingProxyType({item.name: item for item in items if isinstance(item, kind)})


def _groups(groups: Mapping[str, list[Named]]) -> Mapping[str, tuple[Named, ...]]:
    return MappingProxyType({model: tuple(items) for model, items in groups.items()})
