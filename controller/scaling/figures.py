"""Figures: how a group's answers fared lately, by what gateways and engines told, and when that was. Pure.

They are shown beside a decision. What nobody told of stays as it was with its age; it never becomes 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from model_registry.demand.demand import GroupDemand

WHILE_S = 10.0
"""Figures are means over so long: a look each second sees few answers."""
KEPT_S = 600.0
"""An older figure is shown no more."""


class _Kind(NamedTuple):
    """`of`: counts whose sum stands for what `counted` is a part or the sum of."""

    counted: tuple[str, ...]
    of: tuple[str, ...]
    unit: str
    source: str


_KINDS: Mapping[str, _Kind] = {
    "ttft": _Kind(("ttft_s",), ("first_tokens",), "s", "gateways"),
    "late": _Kind(("ttft_missed", "refused"), ("first_tokens", "refused"), "of first tokens", "gateways"),
    "itl": _Kind(("itl_s",), ("paced",), "s", "gateways"),
    "late_between": _Kind(("itl_missed",), ("paced",), "of answers", "gateways"),
    "engine_queue": _Kind(("engine_queue_s",), ("engine_timed",), "s", "engines"),
    "engine_prefill": _Kind(("engine_prefill_s",), ("engine_timed",), "s", "engines"),
    "kv_reuse": _Kind(("reused_tokens",), ("reusable_tokens",), "of prompt tokens", "engines"),
}


class Figure(NamedTuple):
    """One mean."""

    name: str
    value: float
    unit: str
    source: str
    at_s: float
    """The end of the time that it is of, on the clock of the reports."""


class Figures(NamedTuple):
    """As of one look."""

    latest: Mapping[str, Figure] = {}
    begun: GroupDemand | None = None
    """Counts when the present period began."""
    begun_s: float = 0.0

    def shown(self, now_s: float) -> Iterator[Figure]:
        """Those that are not too old, in a fixed order."""
        for name in _KINDS:
            figure = self.latest.get(name)
            if figure is not None and now_s - figure.at_s <= KEPT_S:
                yield figure


NO_FIGURES = Figures()


def told(before: Figures, now_s: float, group: GroupDemand) -> Figures:
    """With what a fresh report says. Counts that have fallen tell nothing of what has come."""
    if before.begun is None:
        return before._replace(begun=group, begun_s=now_s)
    if now_s - before.begun_s < WHILE_S:
        return before
    latest = dict(before.latest)
    for name, kind in _KINDS.items():
        counted, of = _more(before.begun, group, kind.counted), _more(before.begun, group, kind.of)
        if of > 0 and counted >= 0:
            latest[name] = Figure(name, counted / of, kind.unit, kind.source, now_s)
    return Figures(latest, group, now_s)


def _more(before: GroupDemand, now: GroupDemand, counts: tuple[str, ...]) -> float:
    return sum(float(getattr(now, name)) - float(getattr(before, name)) for name in counts)
