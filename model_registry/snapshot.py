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

from model_registry.entities import ApiKey, Deployment, Endpoint, Model, Tenant

Stored = Model | Deployment | Endpoint | Tenant | ApiKey


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
    tenants: Mapping[str, Tenant]
    keys: Mapping[str, ApiKey]
    """By hex SHA-256 of the key."""
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
        for item in sorted(objects, key=lambda item: item.name):
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
        return cls(
            version=version,
            models=MappingProxyType(models),
            aliases=MappingProxyType({a: m.name for m in models.values() for a in m.aliases}),
            deployments=_groups(deployments),
            endpoints=_groups(endpoints),
            tenants=MappingProxyType(tenants),
            keys=MappingProxyType(keys),
            stale=stale,
        )

    def model(self, name: str) -> Model | None:
        """The model that `name` or its alias stands for; profile suffixes are the router's business."""
        found = self.models.get(name)
        if found is None and (target := self.aliases.get(name)) is not None:
            found = self.models.get(target)
        return found

    def objects(self) -> Iterator[Stored]:
        """Everything in it, kind by kind."""
        yield from self.models.values()
        for deployments in self.deployments.values():
            yield from deployments
        for endpoints in self.endpoints.values():
            yield from endpoints
        yield from self.tenants.values()
        yield from self.keys.values()


Named = TypeVar("Named", Deployment, Endpoint)


def _groups(groups: Mapping[str, list[Named]]) -> Mapping[str, tuple[Named, ...]]:
    return MappingProxyType({model: tuple(items) for model, items in groups.items()})
