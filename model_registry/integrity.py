"""Integrity: what must hold between objects of the registry. Pure; the store and the manifests ask it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from model_registry.entities import Adapter, Deployment, Model
from model_registry.errors import DanglingReferenceError, InUseError, NameTakenError
from model_registry.kinds import Ref, kind_of, ref_of
from model_registry.replicas import Replica
from model_registry.rollouts import Rollout
from model_registry.snapshot import Stored
from model_registry.tenants import ApiKey, Tenant

Objects = Mapping[Ref, Stored]


class Reference(NamedTuple):
    """A field that names another object."""

    field: str
    kind: str
    name: str


def references(item: Stored) -> tuple[Reference, ...]:
    """What `item` cannot be stored without.

    Endpoints and replicas outlive their deployment while they drain; replicas do not outlive their pool,
    which says how they are taken down.
    """
    match item:
        case Replica():
            return (Reference("pool", "Pool", item.pool),)
        case Deployment():
            needed = [Reference("model", "Model", item.model)]
            if item.engine is not None:
                needed.append(Reference("engine", "Engine", item.engine))
            if item.scaling is not None:
                needed.append(Reference("scaling.pool", "Pool", item.scaling.pool))
            return tuple(needed)
        case Rollout():
            return (
                Reference("model", "Model", item.model),
                Reference("stable", "Deployment", item.stable),
                Reference("candidate", "Deployment", item.candidate),
            )
        case Adapter():
            return (Reference("model", "Model", item.model),)
        case ApiKey():
            return (Reference("tenant", "Tenant", item.tenant),)
        case Tenant(policy=str(policy)):
            return (Reference("policy", "Policy", policy),)
        case _:
            return ()


def users(ref: Ref, objects: Objects) -> list[Ref]:
    """The objects that name `ref`."""
    return [
        ref_of(item) for item in objects.values() if any((r.kind, r.name) == ref for r in references(item))
    ]


def check_put(items: Iterable[Stored], after: Objects) -> None:
    """Raise unless `items` fit into `after`, the registry as it would be with them."""
    items = list(items)
    for item in items:
        for reference in references(item):
            if (reference.kind, reference.name) not in after:
                raise DanglingReferenceError(kind_of(item), item.name, *reference)
    written = {ref_of(item) for item in items}
    for meaning, owners in clashes(after):
        if written.intersection(owners):
            names = " and ".join(f"{kind} {name!r}" for kind, name in owners)
            raise NameTakenError(f"{meaning} is claimed by {names}; it can stand for one of them only")


def clashes(objects: Objects) -> Iterator[tuple[str, list[Ref]]]:
    """What several objects claim: a name or alias of two models or adapters, one key of two names."""
    claims: defaultdict[str, list[Ref]] = defaultdict(list)
    for item in objects.values():
        match item:
            case Model():
                for name in {item.name, *item.aliases}:
                    claims[f"the model name or alias {name!r}"].append(ref_of(item))
            case Adapter():
                for alias in set(item.aliases):
                    claims[f"the model name or alias {alias!r}"].append(ref_of(item))
            case ApiKey():
                claims[f"the key with SHA-256 {item.sha256[:12]}…"].append(ref_of(item))
    return ((meaning, owners) for meaning, owners in claims.items() if len(owners) > 1)


def deletion(refs: Iterable[Ref], after: Objects, cascade: bool) -> set[Ref]:
    """All that goes with `refs`; `after` is the registry without them.

    Raises InUseError without cascade, and for a pool that has replicas in any case.
    """
    gone, unasked = set(refs), sorted(refs)
    while unasked:
        ref = unasked.pop()
        in_use = [user for user in users(ref, after) if user not in gone]
        if any(kind == "Replica" for kind, _ in in_use):
            raise InUseError(*ref, _shown(in_use), "delete its deployments first, and wait until replicas go")
        if in_use and not cascade:
            raise InUseError(*ref, _shown(in_use))
        gone.update(in_use)
        unasked += in_use
    return gone


def _shown(refs: Iterable[Ref]) -> list[str]:
    return [f"{kind} {name!r}" for kind, name in sorted(refs)]
