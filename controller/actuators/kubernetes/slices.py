"""EndpointSlices: where the pods behind a Service listen, and which of them may get requests. Pure.

Meaning of the conditions: `kubernetes.io/docs/concepts/services-networking/endpoint-slices`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from controller.actuators.port import ActuatorError, Member
from model_registry.entities import ServerRef

Slice = Mapping[str, Any]
SERVICE_LABEL = "kubernetes.io/service-name"


class Ports(NamedTuple):
    """Which of the pods' ports are what: by the names that the Service gives them, or by number."""

    http: str
    grpc: str | None = None
    metrics: str | None = None


class _Seen(NamedTuple):
    """One address in one slice."""

    handle: str
    family: str
    host: str
    ports: Mapping[str, Any]
    ready: bool
    terminating: bool


def members_of(slices: Iterable[Slice], service: str, ports: Ports) -> tuple[Member, ...]:
    """The pods of a Service, by handle, each once.

    A pod may be in two slices while it moves from one to the other, and is in one of each address family:
    IPv4 is preferred, as every pod of a dual-stack cluster has it. Raises ActuatorError where the Service
    has no such port.
    """
    best: dict[str, _Seen] = {}
    lacking: dict[str, None] = {}
    for seen in _all(slices):
        if _port(seen.ports, ports.http) is None:
            lacking |= dict.fromkeys(_told(seen.ports))
        elif seen.handle not in best or _rank(seen) > _rank(best[seen.handle]):
            best[seen.handle] = seen
    if lacking and not best:
        raise ActuatorError(
            f"Service {service!r} has no port {ports.http!r} (it has {', '.join(lacking)}); set actuator.port"
        )
    return tuple(_member(best[handle], service, ports) for handle in sorted(best))


def pod_of(handle: str) -> str:
    """The pod's name; its UID follows in the handle, as a StatefulSet names the next pod like the last."""
    return handle.partition("/")[0]


def _all(slices: Iterable[Slice]) -> Iterator[_Seen]:
    for one in slices:
        family = str(one.get("addressType"))
        if family not in {"IPv4", "IPv6"}:
            continue
        by_name = {str(port.get("name") or ""): port for port in one.get("ports") or ()}
        for endpoint in one.get("endpoints") or ():
            for host in endpoint.get("addresses") or ():
                yield _seen(endpoint, family, host, by_name)
                break  # the API has consumers use the first alone


def _seen(endpoint: Mapping[str, Any], family: str, host: str, ports: Mapping[str, Any]) -> _Seen:
    """`serving` is the pod's own readiness; `ready` is always true where a Service publishes all addresses.

    What is not told counts as ready, and as not terminating: so the API has it.
    """
    conditions = endpoint.get("conditions") or {}
    ready, serving = conditions.get("ready"), conditions.get("serving")
    target = endpoint.get("targetRef") or {}
    named = target.get("kind") == "Pod" and target.get("name")
    terminating = conditions.get("terminating") is True
    return _Seen(
        handle=f"{named}/{target.get('uid') or ''}".rstrip("/") if named else host,
        family=family,
        host=f"[{host}]" if family == "IPv6" else host,
        ports=ports,
        ready=not terminating and (serving if serving is not None else ready is not False),
        terminating=terminating,
    )


def _rank(seen: _Seen) -> tuple[bool, bool, bool]:
    return seen.family == "IPv4", seen.ready, not seen.terminating


def _port(ports: Mapping[str, Any], wanted: str | None) -> Mapping[str, Any] | None:
    if wanted is None:
        return None
    by_number = (port for port in ports.values() if str(port.get("port")) == wanted)
    return ports.get(wanted) or next(by_number, None)


def _told(ports: Mapping[str, Any]) -> Iterator[str]:
    if not ports:
        yield "none"
    for name, port in ports.items():
        yield f"{name} {port.get('port')}".strip()


def _member(seen: _Seen, service: str, ports: Ports) -> Member:
    http = _port(seen.ports, ports.http) or {}
    scheme = "https" if http.get("appProtocol") == "https" else "http"
    metrics = _optional(seen, service, "metrics_port", ports.metrics)
    server = ServerRef(
        http=f"{scheme}://{seen.host}:{http.get('port')}",
        grpc=_optional(seen, service, "grpc_port", ports.grpc),
        metrics=metrics and f"http://{metrics}/metrics",
    )
    return Member(seen.handle, server, seen.ready, seen.terminating)


def _optional(seen: _Seen, service: str, field: str, wanted: str | None) -> str | None:
    if wanted is None:
        return None
    if (port := _port(seen.ports, wanted)) is None:
        raise ActuatorError(
            f"Service {service!r} has no port {wanted!r} (it has {', '.join(_told(seen.ports))}); "
            f"set actuator.{field}"
        )
    return f"{seen.host}:{port.get('port')}"
