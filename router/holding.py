"""Holding: requests for a model that is not up, and that the controller brings up when somebody asks.

Such a request waits in the queue of its model and profile, in its turn, until an endpoint is there, as long
as that is expected soon enough for it and not too many wait already. Owned by one event loop.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from time import monotonic, time
from typing import NamedTuple

from model_registry.entities import Deployment
from model_registry.replicas import ScalingStatus
from model_registry.snapshot import Snapshot
from router.config import HoldingConfig
from router.errors import ColdFullError, ColdModelError, PassedOnError
from router.job import Job
from router.waiting import Waiter
from tenancy.policy import Selection

_LATE_SHARE = 0.25
"""Part of a cold start that one which is late is taken to last on."""
_LONGEST_S = 86_400.0
"""For requests without a deadline of their own: somebody else ends them."""


class Outlook(NamedTuple):
    """When a model that is not up should have an endpoint."""

    eta_s: float
    """From now."""
    under_way: bool
    """A replica is being started; else the time that starting one takes."""


def outlook(
    now_s: float,
    deployments: Iterable[Deployment],
    statuses: Mapping[str, ScalingStatus],
    fits: Callable[[Deployment], bool] | None = None,
) -> Outlook | None:
    """The soonest of `deployments` that scale, take traffic and `fits` lets serve; None: there is none. Pure.

    `now_s`: Unix seconds, as in the statuses.
    """
    found = [
        _of(now_s, one.scaling.cold_start_s, statuses.get(one.name))
        for one in deployments
        if one.scaling is not None and one.weight > 0 and (fits is None or fits(one))
    ]
    return min(found, default=None)


def _of(now_s: float, guessed_s: float, status: ScalingStatus | None) -> Outlook:
    learned_s = None if status is None else status.cold_start_s
    cold_start_s = guessed_s if learned_s is None else learned_s
    expected_at = None if status is None else status.expected_at
    if expected_at is None:  # where starts have failed, the next one begins later
        retry_at = None if status is None else status.retry_at
        return Outlook(max(0.0, (retry_at or now_s) - now_s) + cold_start_s, under_way=False)
    eta_s = expected_at - now_s
    return Outlook(eta_s if eta_s > 0 else max(1.0, _LATE_SHARE * cold_start_s), under_way=True)


def may_take_s(now_s: float, deadline_s: float | None, max_wait_s: float | None) -> float:
    """How long a request may be held from now on; times are of one clock. Pure."""
    left_s = _LONGEST_S if deadline_s is None else deadline_s - now_s
    return max(0.0, left_s if max_wait_s is None else min(left_s, max_wait_s))


class Holding:
    """What is held in one gateway process, and how much more may be."""

    def __init__(
        self,
        config: HoldingConfig,
        snapshot: Callable[[], Snapshot],
        is_served: Callable[[Job], bool],
    ) -> None:
        """`is_served`: whether an endpoint is up that may serve a job, whatever its load."""
        self._config = config
        self._snapshot = snapshot
        self._is_served = is_served
        self._requests: Counter[str] = Counter()
        self._tokens: Counter[str] = Counter()
        self.on_held: Callable[[], None] | None = None
        """Called when a request comes to be held for a model for which none was."""

    def coming(self, job: Job) -> Outlook | None:
        """When an endpoint should come for a job that none which is up may serve; None: it is not held."""
        return None if self._is_served(job) else self.outlook(job.wish.model.name, job.selection)

    def outlook(self, model: str, selection: Selection | None) -> Outlook | None:
        """When an endpoint should come that `selection` lets serve; None: nobody brings one up."""
        snapshot = self._snapshot()
        deployments = snapshot.deployments.get(model, ())
        if not deployments:
            return None
        fits = None if selection is None else lambda one: selection.may_fit(one, snapshot.pools)
        return outlook(time(), deployments, snapshot.scaling, fits)

    def limit_s(self, job: Job) -> float:
        """How long `job` may be held from now on."""
        return may_take_s(monotonic(), job.deadline_s, self._config.max_wait_s)

    def admit(self, job: Job, coming: Outlook, *, queue_is_full: bool) -> None:
        """Whether `job` may be held. Raises PassedOnError, ColdFullError or ColdModelError.

        One that an endpoint has begun with before may always be.
        """
        model, config = job.wish.model.name, self._config
        if job.dispatched:
            return
        if job.has_stand_in:
            raise PassedOnError(model, coming.eta_s)
        full = (
            queue_is_full
            or self._requests[model] >= config.max_requests
            or self._tokens[model] + job.tokens > config.max_tokens
        )
        if full:
            raise ColdFullError(model, coming.eta_s)
        if coming.eta_s > self.limit_s(job):
            raise ColdModelError(model, coming.eta_s)

    def begin(self, waiter: Waiter) -> None:
        """It is held from now on; `end` follows."""
        job, model = waiter.job, waiter.job.wish.model.name
        waiter.held_s = monotonic()
        if job.counts is not None and job.waiting is not None:
            job.counts.hold(job.waiting, held=True)
        self._requests[model] += 1
        self._tokens[model] += job.tokens
        if self._requests[model] == 1 and self.on_held is not None:
            self.on_held()

    def end(self, waiter: Waiter) -> None:
        """It is held no more, if it was."""
        if waiter.held_s is None:
            return
        job, model = waiter.job, waiter.job.wish.model.name
        job.held_s += monotonic() - waiter.held_s
        waiter.held_s = None
        if job.counts is not None and job.waiting is not None:
            job.counts.hold(job.waiting, held=False)
        self._requests[model] -= 1
        self._tokens[model] -= job.tokens
        if self._requests[model] == 0:
            del self._requests[model], self._tokens[model]

    def requests(self) -> Mapping[str, int]:
        """Those held, by model."""
        return self._requests


def reason_of(error: ColdModelError) -> str:
    """As refusals are counted by."""
    return "cold_queue_full" if isinstance(error, ColdFullError) else "model_loading"
