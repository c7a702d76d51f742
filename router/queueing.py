"""Queueing: where requests wait for an endpoint, and when they stop waiting. Owned by one event loop.

A request that finds room goes at once: that path is a few attribute reads. One that begins like another that
is just being computed waits a moment for that one (`router.siblings`). While the endpoints of its model
are full it waits in the fair queue of its deployment group (`router.queues`) until one of their windows has
room. While there is none at all it waits in the waiting room, or, where one is brought up, is held: it keeps
its turn in that queue (`router.holding`).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

from inference.request import Usage
from model_registry.knobs import Knobs
from model_registry.snapshot import Snapshot
from router.admission import allowed_ttft_s
from router.admission_gate import AdmissionGate
from router.config import RouterConfig
from router.deciding import Dispatched
from router.demand import Waiting
from router.holding import Holding
from router.job import Job
from router.job_places import JobPlaces
from router.observer import QueueObserver
from router.pick import Decision
from router.picker import Picker
from router.places import Place, Places
from router.queues import Queues
from router.siblings import Siblings
from router.timing import UNTIMED, Timing
from router.waiting import need_of, uncached_of

_BACKOFF_S = 0.05
_MAX_BACKOFF_S = 0.4


class Queueing:
    """Where the jobs of one gateway process wait."""

    def __init__(
        self,
        config: RouterConfig,
        snapshot: Callable[[], Snapshot],
        picker: Picker,
        places: Places,
        observer: QueueObserver,
        knobs: Callable[[str], Knobs],
    ) -> None:
        self.places = places
        self.waiting: Counter[str] = Counter()
        """Requests that wait for an endpoint, by model; those that use spare capacity only don't count."""
        self.holding = Holding(config.holding, snapshot, picker.is_served)
        self._config = config
        self._snapshot = snapshot
        self._picker = picker
        self._observer = observer
        self._knobs = knobs
        self._loop = asyncio.get_running_loop()
        self._siblings = Siblings(knobs, self._release)
        self._job_places = JobPlaces(places, self._siblings, snapshot, knobs)
        self._gate = AdmissionGate(snapshot, picker.expected, observer, knobs)
        self.queues = Queues(
            config.no_endpoint_timeout_s,
            snapshot,
            picker,
            places,
            self._job_places,
            self._siblings,
            self._gate,
            self.holding,
            observer,
            knobs,
        )
        self._changed = asyncio.Event()

    def at_once(self, job: Job, failed: set[str]) -> Decision | None:
        """An endpoint for `job` with a place taken there; None: it has to wait. Raises NoRoomError."""
        if job.dispatched:
            left = self._job_places.leave(job)
            if left is not None and self.queues.groups:
                self.queues.room(left.endpoint.model, left.endpoint.profile)
        return self._at_once(job, failed)

    async def wait(self, job: Job, failed: set[str]) -> Decision:
        """As `at_once`, for a job that has to wait; the decision for none when that took too long.

        Raises NoRoomError.
        """
        decision = None
        while decision is None and job.behind is not None:
            await self._siblings.wait(job.behind, job)
            decision = self._at_once(job, failed)
        if decision is not None:
            return decision
        model, counts = job.wish.model.name, job.counts
        if counts is None:
            return await self._wait(job, failed)
        waiting = job.waiting = Waiting(self._loop.time(), uncached_of(job))
        self._waits(model, 1)
        counts.enter(waiting)
        try:
            decision = await self._wait(job, failed)
        finally:
            self._waits(model, -1)
            counts.leave(waiting)
        if job.held_s > 0 and job.on_held is not None:
            job.on_held()
        return decision

    def ended(self, job: Job, usage: Usage | None) -> None:
        """The request is over: its place is free, its tenant charged what it used, if that is known."""
        left = self._job_places.leave(job)
        if left is not None and self.queues.groups:
            self.queues.room(left.endpoint.model, left.endpoint.profile)
        if job.charge is not None:
            charge, job.charge = job.charge, None
            charge(usage)

    def first_token(
        self, then: Callable[[], None], job: Job, place: Place, sent_s: float, idle_ttft_s: float
    ) -> None:
        """`then`, and the window learns how long it took beside an idle engine; whoever waited for this
        prompt to be computed goes."""
        then()
        now_s = self._loop.time()
        if job.lead is not None:
            self._siblings.computed(job)
        if job.counts is not None:
            knobs = job.knobs or self._knobs(job.wish.profile)
            late = job.counts.first_token(now_s - job.arrived_s, allowed_ttft_s(knobs, idle_ttft_s))
            self._observer.first_token(job.wish, late=late)
        self.places.learn(place, now_s - sent_s, idle_ttft_s)

    def answered(
        self, job: Job, endpoint: str, usage: Usage, timing: Timing, sent: Dispatched, *, seen: bool
    ) -> None:
        """Its answer is whole; `seen`: its first token was, so that `first_token` has told of it."""
        if timing is UNTIMED:
            if job.counts is not None:
                job.counts.reused(usage)
            return
        knobs = job.knobs or self._knobs(job.wish.profile)
        place = job.place if job.place is not None and job.place.endpoint.name == endpoint else None
        if timing.ttft_s is not None and not seen:
            if job.counts is not None:
                allowed_s = allowed_ttft_s(knobs, sent.idle_ttft_s)
                late = job.counts.first_token(sent.at_s + timing.ttft_s - job.arrived_s, allowed_s)
                self._observer.first_token(job.wish, late=late)
            if place is not None:
                self.places.learn(place, timing.ttft_s, sent.idle_ttft_s)
        if timing.unqueued_ttft_s is not None and place is not None:
            self.places.unqueued(place, timing.unqueued_ttft_s, sent.idle_ttft_s)
        if job.counts is not None:
            job.counts.reused(usage)
            job.counts.answered(timing, knobs.itl_target_s)

    def registry_changed(self) -> None:
        """Endpoints came, went or changed: whoever waits looks again."""
        self._changed.set()
        self._changed = asyncio.Event()
        self.places.retain(one for group in self._snapshot().endpoints.values() for one in group)
        for model, requests in self.waiting.items():
            if requests:  # slots of an endpoint that has just come are asked for at once
                self.places.wanted(self._snapshot().endpoints.get(model, ()), requests)
        self.queues.review()

    def shared_anew(self) -> None:
        """Gateway processes have changed slots with each other."""
        self.places.shared_anew()
        self.queues.look()

    def _waits(self, model: str, more: int) -> None:
        self.waiting[model] += more
        self.places.wanted(self._snapshot().endpoints.get(model, ()), self.waiting[model])

    def _at_once(self, job: Job, failed: set[str]) -> Decision | None:
        """The decision where nobody waits and there is room; None: it has to wait, in the queue or `behind`
        another."""
        job.behind, groups = None, self.queues.groups
        if groups and job.spare is None and (job.wish.model.name, job.wish.profile) in groups:
            return None
        need, places = need_of(job), self.places
        excluded = failed | self._job_places.closed(job, need) if places.full or places.bounded else failed
        decision = self._picker.decide(job, excluded)
        if decision.endpoint is None:
            return None
        if self._siblings and (lead := self._siblings.lead_for(job)) is not None:
            job.behind = lead
            return None
        if job.spare is None and not job.dispatched:
            verdict = self._gate.at_endpoint(job, decision.endpoint.name, 0.0)
            if verdict is not None:
                raise self._gate.refusal(job, verdict)
        return self._job_places.take(job, decision, need)

    def _release(self, lead: Job) -> None:
        """Whoever waited in the queue for a prompt to be computed may go."""
        if self.queues.groups:
            self.queues.room(lead.wish.model.name, lead.wish.profile)

    async def _wait(self, job: Job, failed: set[str]) -> Decision:
        """In the waiting room while nothing may serve the request, in the queue while what may is full."""
        deadline_s = self._loop.time() + self._config.no_endpoint_timeout_s
        backoff_s = _BACKOFF_S
        while True:
            decision = self._picker.decide(job, failed)
            if job.spare is None:
                coming = None if decision.endpoint is not None else self.holding.coming(job)
                if decision.endpoint is not None or coming is not None:
                    return await self.queues.wait(job, failed, coming)
            left_s = deadline_s - self._loop.time()
            if left_s <= 0:
                return Decision(None, "no_room" if decision.endpoint else decision.reason, {})
            changed = self._changed
            try:
                async with asyncio.timeout(min(backoff_s, left_s)):
                    await changed.wait()
            except TimeoutError:
                backoff_s = min(2 * backoff_s, _MAX_BACKOFF_S)
                failed.clear()  # all were tried: one that failed may be back by now
            found = self._at_once(job, failed)
            if found is not None:
                return found
