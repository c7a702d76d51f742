"""Demand: what gateway workers report of the load, and their sum. Pure values.

Counts grow from the worker's start on; the reader works out rates from two reports. Gauges hold for now.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final, TypeVar

from msgspec import Struct
from msgspec.structs import asdict

LAPSES_S: Final = 10.0
"""Reports that are older say nothing of now: gateways report every second, also when they saw nothing."""
ENDED_S: Final = 60.0
"""Who has not reported for so long counts as ended."""


class GroupDemand(Struct, frozen=True, kw_only=True):
    """Of the requests for one model under one profile."""

    waiting: int = 0
    """Gauge: in the queue or the waiting room."""
    waiting_tokens: int = 0
    """Gauge: their uncached prompt tokens."""
    held: int = 0
    """Gauge: those of them that no endpoint could serve, for none is up."""
    oldest_s: float = 0.0
    """Gauge: how long the first of them has waited."""
    arrivals: int = 0
    """Count: requests, those that were refused included."""
    prompt_tokens: int = 0
    """Count, of arrivals."""
    output_tokens: int = 0
    """Count, of those that have ended."""
    ended: int = 0
    """Count."""
    refused: int = 0
    """Count: for want of capacity (429 and 503)."""
    ttft_s: float = 0.0
    """Count: sum of the times to the first token."""
    first_tokens: int = 0
    """Count: of those."""
    ttft_missed: int = 0
    """Count: those above the target, the profile's or the deployment's."""
    itl_s: float = 0.0
    """Count: sum of the mean times between tokens of whole answers."""
    paced: int = 0
    """Count: of those answers."""
    itl_missed: int = 0
    """Count: those above the target."""
    engine_queue_s: float = 0.0
    """Count: sum of the times in engines' queues, by the engines' word."""
    engine_prefill_s: float = 0.0
    """Count: sum of the times from there to the first token."""
    engine_timed: int = 0
    """Count: answers of which the engine told these."""
    reused_tokens: int = 0
    """Count: prompt tokens that engines said came from their KV caches."""
    reusable_tokens: int = 0
    """Count: all prompt tokens of those answers."""


class EndpointDemand(Struct, frozen=True, kw_only=True):
    """Of the requests at one endpoint."""

    requests: int = 0
    """Gauge: in flight."""
    prefill_tokens: int = 0
    """Gauge: uncached prompt tokens not yet computed."""
    decode_tokens: int = 0
    """Gauge: tokens held in its KV cache by requests under way."""
    failed: int = 0
    """Count: attempts that failed for the endpoint's reasons."""
    ended: int = 0
    """Count: attempts that ended well."""
    first_tokens: int = 0
    """Count: answers that were seen to begin."""


class WorkerDemand(Struct, frozen=True, kw_only=True):
    """One gateway worker's report."""

    groups: dict[str, GroupDemand] = {}
    """By `<model>:<profile>`."""
    endpoints: dict[str, EndpointDemand] = {}


class Demand(Struct, frozen=True, kw_only=True):
    """The sum over the workers that have told lately."""

    at_s: float
    """Redis time, Unix seconds."""
    age_s: float | None
    """How old the oldest of their reports is; None: nobody has told anything."""
    workers: int = 0
    silent: int = 0
    """Others that have not told lately, and have not said that they end either: what they do is not known."""
    groups: dict[str, GroupDemand] = {}
    endpoints: dict[str, EndpointDemand] = {}


COUNTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "groups": (
            "arrivals",
            "prompt_tokens",
            "output_tokens",
            "ended",
            "refused",
            "ttft_s",
            "first_tokens",
            "ttft_missed",
            "itl_s",
            "paced",
            "itl_missed",
            "engine_queue_s",
            "engine_prefill_s",
            "engine_timed",
            "reused_tokens",
            "reusable_tokens",
        ),
        "endpoints": ("failed", "ended", "first_tokens"),
    }
)
"""Fields that only grow."""
_GREATEST = frozenset({"oldest_s"})
_Part = TypeVar("_Part", GroupDemand, EndpointDemand)


def together(
    at_s: float, told: Iterable[tuple[float, WorkerDemand]], ended: WorkerDemand, lapses_s: float
) -> Demand:
    """The sum of reports, each with its age in seconds, and of what workers had counted that have `ended`.

    Of reports older than `lapses_s` only the counts count.
    """
    groups: dict[str, list[GroupDemand]] = {}
    endpoints: dict[str, list[EndpointDemand]] = {}
    ages_s: list[float] = []
    told = list(told)
    for age_s, demand in (*told, (lapses_s + 1.0, ended)):
        lapsed = age_s > lapses_s
        if not lapsed:
            ages_s.append(max(0.0, age_s))
        for name, group in demand.groups.items():
            groups.setdefault(name, []).append(_counted("groups", group) if lapsed else group)
        for name, endpoint in demand.endpoints.items():
            endpoints.setdefault(name, []).append(_counted("endpoints", endpoint) if lapsed else endpoint)
    return Demand(
        at_s=at_s,
        age_s=max(ages_s, default=None),
        workers=len(ages_s),
        silent=len(told) - len(ages_s),
        groups={name: _sum(parts) for name, parts in groups.items()},
        endpoints={name: _sum(parts) for name, parts in endpoints.items()},
    )


def since(now: WorkerDemand, before: WorkerDemand) -> WorkerDemand:
    """`now`, with counts that begin at what they were `before`."""
    return WorkerDemand(
        groups={name: _less("groups", one, before.groups.get(name)) for name, one in now.groups.items()},
        endpoints={
            name: _less("endpoints", one, before.endpoints.get(name)) for name, one in now.endpoints.items()
        },
    )


def _counted(kind: str, part: _Part) -> _Part:
    return type(part)(**{name: getattr(part, name) for name in COUNTS[kind]})


def _less(kind: str, part: _Part, before: _Part | None) -> _Part:
    if before is None:
        return part
    counts = {name: max(0, getattr(part, name) - getattr(before, name)) for name in COUNTS[kind]}
    return type(part)(**{**asdict(part), **counts})


def _sum(parts: list[_Part]) -> _Part:
    if len(parts) == 1:
        return parts[0]
    kind = type(parts[0])
    values = {
        name: max(column) if name in _GREATEST else sum(column)
        for name in kind.__struct_fields__
        if (column := [getattr(part, name) for part in parts])
    }
    return kind(**values)
