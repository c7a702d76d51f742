"""SpareCapacity: what of the endpoints' room rows of batch jobs may use, on this worker, now.

A share of the slots that no interactive request holds, on any worker, divided among the workers. What this
worker has in flight is read from its ledger at every decision; what the others have, from their last
reports. Without news of them nothing is spare.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from model_registry.entities import Endpoint
from model_registry.snapshot import Snapshot
from router.ledger import Ledger
from router.profiles import stand_ins

PROFILE = "throughput"
"""The profile that rows run under."""


def quota(slots: int, interactive: int, share: float, rank: int, workers: int) -> int:
    """Rows that the worker of this `rank` (from 0) may have at an endpoint. Pure.

    Workers without a whole row each take turns by rank, so that all of them together stay within the share.
    """
    rows = int(max(0, slots - interactive) * share)
    each, left = divmod(rows, workers)
    return each + (rank < left)


class Others(NamedTuple):
    """What the other workers report."""

    interactive: Mapping[str, int]
    """Requests in flight by endpoint, without rows."""
    rows: Mapping[str, int]
    """Rows in flight by endpoint: one that joins takes its part only as the others let go of theirs."""
    waiting: frozenset[str]
    """Models that requests wait for."""
    rank: int
    """This worker's place among all, from 0."""
    workers: int
    counted_in: bool
    """All others leave this worker its part, by what they report."""
    until_s: float
    """Loop time at which this is too old."""


class Report(NamedTuple):
    """What a worker tells the others."""

    interactive: dict[str, int]
    rows: dict[str, int]
    waiting: list[str]
    as_of_ms: int = 0
    """By Redis' clock, when it last heard of the others: whoever came before has its part left to it."""


class SpareCapacity:
    """Owned by the event loop of one gateway process."""

    def __init__(
        self,
        ledger: Ledger,
        waiting: Counter[str],
        snapshot: Callable[[], Snapshot],
        share: float,
    ) -> None:
        self._ledger = ledger
        self._waiting = waiting
        self._snapshot = snapshot
        self._share = share
        self._others: Others | None = None
        self._loop = asyncio.get_running_loop()

    def report(self, as_of_ms: int = 0) -> Report:
        """What the other workers should know of this one, which last heard of them at `as_of_ms`."""
        loads = self._ledger.loads().items()
        return Report(
            {name: load.requests - load.spare for name, load in loads if load.requests > load.spare},
            {name: load.spare for name, load in loads if load.spare},
            [model for model, count in self._waiting.items() if count > 0],
            as_of_ms,
        )

    def learn(self, own: str, reports: Mapping[str, Report], joined_ms: int, until_s: float) -> None:
        """Take the reports of all workers, this one's among them, to go by until a loop time.

        Nothing is spare here until all others have reported after they heard of this one, which joined at
        `joined_ms` by Redis' clock: until then each may still take what would be this worker's part.
        """
        counted_in = all(report.as_of_ms > joined_ms for name, report in reports.items() if name != own)
        interactive: Counter[str] = Counter()
        rows: Counter[str] = Counter()
        waiting: set[str] = set()
        for worker, report in reports.items():
            if worker != own:
                interactive.update(report.interactive)
                rows.update(report.rows)
                waiting.update(report.waiting)
        names = sorted({*reports, own})
        place = names.index(own), len(names)
        self._others = Others(interactive, rows, frozenset(waiting), *place, counted_in, until_s)

    def room(self, model: str) -> int:
        """Rows of `model` that may be started now."""
        return sum(max(0, self._left(endpoint)) for endpoint in self._pool(model))

    def held(self, model: str) -> int:
        """Rows of `model` that this worker has at endpoints."""
        endpoints = self._snapshot().endpoints.get(model, ())
        return sum(self._ledger.of(endpoint.name).spare for endpoint in endpoints)

    def admits(self, endpoint: Endpoint) -> bool:
        """Whether a row may go to `endpoint` now."""
        return self._left(endpoint) > 0 and endpoint in self._pool(endpoint.model)

    def _pool(self, model: str) -> Sequence[Endpoint]:
        """The ready endpoints of the throughput profile, or of its first stand-in that has any.

        Rows do not overflow into a profile that is there for others.
        """
        others = self._others
        if self._waiting[model] > 0 or others is None or model in others.waiting:
            return ()
        ready = [e for e in self._snapshot().endpoints.get(model, ()) if e.state == "ready"]
        for profile in stand_ins(PROFILE, (endpoint.profile for endpoint in ready)):
            if pool := [endpoint for endpoint in ready if endpoint.profile == profile]:
                return pool
        return ()

    def _left(self, endpoint: Endpoint) -> int:
        others = self._others
        if others is None or not others.counted_in or self._loop.time() > others.until_s:
            return 0
        load = self._ledger.of(endpoint.name)
        interactive = load.requests - load.spare + others.interactive.get(endpoint.name, 0)
        slots, share = endpoint.max_concurrency, self._share
        own = quota(slots, interactive, share, others.rank, others.workers)
        total = quota(slots, interactive, share, 0, 1)
        return min(own, total - others.rows.get(endpoint.name, 0)) - load.spare
