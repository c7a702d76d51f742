"""Signals: every figure that a decision went by or that explains it, with its source, unit and age. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from controller.scaling.decide import Decision, Seen
from controller.scaling.figures import Figures
from controller.scaling.groups import Group
from model_registry.demand.demand import Demand
from model_registry.replicas import Signal
from model_registry.snapshot import Snapshot
from router.targets import strictest


def signals_of(
    now_s: float,
    group: Group,
    seen: Seen,
    decision: Decision,
    figures: Figures,
    snapshot: Snapshot,
    demand: Demand,
) -> Iterator[Signal]:
    """Of one group; what is not known is left out."""

    def of(
        name: str, value: float, unit: str, source: str = "gateways", age_s: float | None = None
    ) -> Signal:
        if source == "gateways" and age_s is None:
            age_s = seen.age_s
        return Signal(name=name, value=round(value, 4), unit=unit, source=source, age_s=age_s)

    if seen.arrived is not None:
        yield of("load", decision.load, "replicas")
        yield of("expected_load", decision.expected, "replicas")
        yield of("waiting", seen.backlog, "replica-seconds")
        yield of("in_flight", seen.busy, "replicas")
    if seen.age_s is not None:
        yield of("held", seen.held, "requests")
    if demand.silent:
        yield of("silent", demand.silent, "gateway processes")
    for figure in figures.shown(now_s):
        age_s = now_s - figure.at_s + (seen.age_s or 0.0)
        yield of(figure.name, figure.value, figure.unit, figure.source, round(age_s, 3))
    if (kv_use := _kv_use(group, snapshot, demand)) is not None:
        yield of("kv_use", kv_use, "of KV tokens")
    if group.members:
        own = [one.deployment for one in group.members]
        targets = strictest(own, snapshot.knobs(own[0].profile))
        yield of("ttft_target", targets.ttft.seconds, "s", targets.ttft.source)
        yield of("itl_target", targets.itl.seconds, "s", targets.itl.source)
        yield of("cold_start", group.limits.cold_start_s, "s", "controller")
    yield of("fill", decision.fill, "of the card's capacity")
    yield of("capacity", group.unit.requests_per_s, "requests/s per replica", "card")


def _kv_use(group: Group, snapshot: Snapshot, demand: Demand) -> float | None:
    """Part of its ready engines' KV caches that requests under way hold, as gateways reckon.

    None where no gateway is heard, or no engine says how large its cache is.
    """
    held = room = 0
    for endpoint in (one for of_model in snapshot.endpoints.values() for one in of_model):
        tokens = endpoint.server_schema.get("kv_tokens")
        if endpoint.deployment not in group.names or endpoint.state != "ready" or not tokens:
            continue
        room += int(tokens)
        told = demand.endpoints.get(endpoint.name)
        held += 0 if told is None else told.prefill_tokens + told.decode_tokens
    return None if not room or demand.age_s is None else held / room
