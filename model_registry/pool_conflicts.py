"""Pool conflicts: what a change of pools would leave without anybody to look after it. Pure.

Replicas are found again only where their pool's actuator looks, and a Triton is loaded and restarted by one
pool alone: two would undo each other's work.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from model_registry.errors import PoolConflictError
from model_registry.kinds import Ref, ref_of
from model_registry.pools import (
    Actuator,
    DockerActuator,
    KubernetesActuator,
    Pool,
    PoolServer,
    TritonActuator,
)
from model_registry.replicas import Replica
from model_registry.snapshot import Stored
from model_registry.yaml_source import Path, dotted

Objects = Mapping[Ref, Stored]
SHOWN = 3
"""Replicas that a message names."""


class PoolConflict(NamedTuple):
    """One field of a pool that cannot be so."""

    pool: str
    path: Path
    message: str


def stranding(written: Iterable[Stored], before: Objects, after: Objects) -> Iterator[PoolConflict]:
    """Changes of where a pool's replicas are looked for, while it has any: nobody would find them again."""
    for pool in pools_of(written):
        stored = before.get(("Pool", pool.name))
        if not isinstance(stored, Pool) or stored.actuator == pool.actuator:
            continue
        was, wanted = _where(stored.actuator), _where(pool.actuator)
        field = next((name for name in ("type", *was) if was.get(name) != wanted.get(name)), None)
        there = sorted(
            one.name for one in after.values() if isinstance(one, Replica) and one.pool == pool.name
        )
        if field is None or not there:
            continue
        shown = ", ".join(there[:SHOWN]) + (f" and {len(there) - SHOWN} more" if len(there) > SHOWN else "")
        yield PoolConflict(
            pool.name,
            ("actuator", field),
            f"stays {was[field]!r} while the pool has replicas ({shown}), which nobody would find "
            "elsewhere and stop; apply another pool, name that in the deployments' scaling.pool, and change "
            "or delete this one once they have gone",
        )


def sharing(written: Iterable[Stored], after: Objects) -> Iterator[PoolConflict]:
    """Servers that another pool has, too."""
    owners: defaultdict[str, set[str]] = defaultdict(set)
    for pool in pools_of(after.values()):
        for server in _servers(pool):
            owners[same_server(server.http)].add(pool.name)
    for pool in pools_of(written):
        for index, server in enumerate(_servers(pool)):
            others = sorted(owners[same_server(server.http)] - {pool.name})
            if others:
                yield PoolConflict(
                    pool.name,
                    ("actuator", "servers", index, "http"),
                    f"{server.http} is a server of pool {others[0]!r}, too: each would count its memory as "
                    "its own, and unload what the other has loaded; list it in one of them",
                )


def check(conflicts: Iterable[PoolConflict]) -> None:
    """Raise PoolConflictError for the first."""
    for conflict in conflicts:
        raise PoolConflictError(conflict.pool, dotted(conflict.path), conflict.message)


def pools_of(items: Iterable[Stored]) -> Iterator[Pool]:
    """The pools among them."""
    return (one for one in items if isinstance(one, Pool))


def by_ref(items: Iterable[Stored]) -> dict[Ref, Stored]:
    """As the rules want them."""
    return {ref_of(item): item for item in items}


def same_server(http: str) -> str:
    """Equal for URLs of one server."""
    parts = urlsplit(http)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"{parts.hostname}:{port}{parts.path.rstrip('/')}"


def _servers(pool: Pool) -> Sequence[PoolServer]:
    return pool.actuator.servers if isinstance(pool.actuator, TritonActuator) else ()


def _where(actuator: Actuator) -> dict[str, object]:
    """What says where its replicas are. A Triton pool's servers do not: those that are left are emptied."""
    match actuator:
        case DockerActuator():
            return {"type": actuator.type, "url": actuator.url}
        case KubernetesActuator():
            fields = ("type", "kubeconfig", "namespace", "kind", "workload")
            return {name: getattr(actuator, name) for name in fields}
        case _:
            return {"type": actuator.type}
