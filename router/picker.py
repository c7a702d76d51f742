"""Picker: which endpoint serves a job's next attempt, and which ones may serve it at all.

Gathers the values that `router.pick` decides by. Owned by the event loop of one gateway process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence, Set
from time import monotonic

from model_registry.entities import Endpoint
from model_registry.knobs import Knobs
from model_registry.snapshot import Snapshot
from router.deciding import Deciding, Expected
from router.explain import Considered
from router.job import Job
from router.paces import Paces
from router.pick import Candidate, Decision, pick
from router.placement import Placement
from router.places import Places
from router.sides import served_by
from router.view import Ask

_NONE: frozenset[str] = frozenset()


class Picker:
    """One gateway process's."""

    def __init__(
        self,
        deciding: Deciding,
        paces: Paces,
        placement: Placement,
        places: Places,
        snapshot: Callable[[], Snapshot],
        knobs: Callable[[str], Knobs],
    ) -> None:
        self._deciding = deciding
        self._paces = paces
        self._placement = placement
        self._places = places
        self._snapshot = snapshot
        self._knobs = knobs
        self._loop = asyncio.get_running_loop()

    def decide(self, job: Job, failed: set[str]) -> Decision:
        """The endpoint for the next attempt of `job`, none of `failed`; the job keeps what it was made of."""
        model, profile, now_s = job.wish.model.name, job.wish.profile, self._loop.time()
        excluded = failed | job.refused_by if job.refused_by else failed
        endpoints = self._open_to(job, excluded)
        ask = self._ask(job, endpoints)
        choices = self._choices(job, ask, endpoints, now_s)
        left = self._paces.left(endpoints, monotonic())
        knobs = job.knobs = self._knobs(profile)
        policy = job.policy = self._deciding.policy(model, profile, knobs)
        decision = pick(profile, knobs, policy, ask, choices, excluded | left if left else excluded, now_s)
        if decision.endpoint is None and left and not self._well_but_full(choices, excluded, left):
            # better a bad endpoint than none
            decision = pick(profile, knobs, policy, ask, choices, excluded, now_s)
        job.considered = Considered(decision, choices, frozenset(excluded) if excluded else _NONE, left)
        return decision

    def expected(self, job: Job, endpoint: str | None = None) -> Expected:
        """When the first token would come if the request went to `endpoint` now; None: to the soonest."""
        endpoints = self._open_to(job, job.refused_by)
        ask = self._ask(job, endpoints)
        choices = self._choices(job, ask, endpoints, self._loop.time())
        return self._deciding.expected(ask, [c for c in choices if endpoint in (None, c.endpoint.name)])

    def is_served(self, job: Job) -> bool:
        """Whether an endpoint is up that may serve the job, whatever its load."""
        return any(
            one.state == "ready" and one.weight > 0 and self._may_carry(job, one)
            for one in self._open_to(job, job.refused_by)
        )

    def may_be_carried(self, job: Job) -> bool:
        """Whether any endpoint is worth waiting for, ready now or not."""
        return any(self._may_carry(job, endpoint) for endpoint in self._open_to(job, job.refused_by))

    def _may_carry(self, job: Job, endpoint: Endpoint) -> bool:
        """Whether the endpoint is worth waiting for; rows of batch jobs keep to their profile."""
        return (
            endpoint.name not in job.refused_by
            and (job.lanes is None or endpoint.lane in job.lanes)
            and (job.selection is None or job.selection.fits(endpoint))
            and (job.spare is None or endpoint.profile == job.wish.profile)
            and endpoint.state != "unhealthy"
            and endpoint.weight > 0
        )

    def _open_to(self, job: Job, unavailable: Set[str]) -> Sequence[Endpoint]:
        """The model's endpoints; during a rollout those of the job's side."""
        snapshot, model = self._snapshot(), job.wish.model.name
        rolling = snapshot.rolling.get(model)
        if rolling is None:
            return snapshot.endpoints.get(model, ())
        key = job.session or job.request.id
        fits = None if job.selection is None else job.selection.fits
        spare = job.spare is not None
        return served_by(rolling, key, job.wish.profile, job.lanes, unavailable, fits, spare=spare)

    def _choices(self, job: Job, ask: Ask, endpoints: Sequence[Endpoint], now_s: float) -> list[Candidate]:
        """Of `endpoints`, which are the model's, those that may serve the job."""
        if job.selection is not None:
            endpoints = [endpoint for endpoint in endpoints if job.selection.fits(endpoint)]
        if job.spare is not None:
            endpoints = [endpoint for endpoint in endpoints if job.spare(endpoint)]
        lacks_adapter = None
        if (lora := job.request.lora) is not None:
            task_id = lora.task_id

            def lacks_adapter(endpoint: str) -> bool:
                return not self._placement.holds(endpoint, task_id)

        model = job.wish.model.name
        return self._deciding.candidates(model, endpoints, job.lanes, ask, now_s, lacks_adapter)

    def _well_but_full(self, choices: Sequence[Candidate], excluded: set[str], left: Set[str]) -> bool:
        """Whether an endpoint that is not left alone is only waited for."""
        full = self._places.full
        return any(
            one.endpoint.state == "ready"
            and one.breaker_admits
            and one.endpoint.name in full & excluded - left
            for one in choices
        )

    def _ask(self, job: Job, endpoints: Sequence[Endpoint]) -> Ask:
        """Made once for each request that the job sends: hashing a long prompt takes a while."""
        if job.asks is None or job.asks[0] is not job.request:
            ask = self._deciding.ask(job.request, job.tokens, job.isolation_class, endpoints, job.session)
            job.asks = job.request, ask
        return job.asks[1]
