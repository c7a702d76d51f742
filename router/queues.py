"""Queues: the fair queue of each deployment group (model and profile), and when its requests leave it.

Whatever gives room lets as many go as fit. A request for which no endpoint is up, but one is coming, is held:
it keeps its turn, for as long as it may (`router.holding`). A slow tick makes up for what nobody tells (a
breaker that half-opens, a window that grew). Owned by one event loop.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from functools import partial

from model_registry.knobs import Knobs
from model_registry.snapshot import Snapshot
from router.admission import Verdict, service
from router.admission_gate import AdmissionGate
from router.errors import ColdModelError, NoEndpointsError, RouterError
from router.fair_queue import FairQueue
from router.holding import Holding, Outlook, reason_of
from router.job import Job
from router.job_places import JobPlaces
from router.observer import QueueObserver
from router.pick import Decision
from router.picker import Picker
from router.places import Places
from router.siblings import Siblings
from router.tenant_turns import Answer, Ticket
from router.waiting import Group, Waiter, need_of, settle
from router.window import Held

_TICK_S = 0.05
_RETRY_FAILED_S = 0.4
"""After this in the queue, endpoints that have failed a request are tried again."""


class Queues:
    """Those of one gateway process."""

    def __init__(
        self,
        no_endpoint_timeout_s: float,
        snapshot: Callable[[], Snapshot],
        picker: Picker,
        places: Places,
        job_places: JobPlaces,
        siblings: Siblings,
        gate: AdmissionGate,
        holding: Holding,
        observer: QueueObserver,
        knobs: Callable[[str], Knobs],
    ) -> None:
        self.groups: dict[tuple[str, str], Group] = {}
        """Those for which somebody waits, by model and profile."""
        self._no_endpoint_timeout_s = no_endpoint_timeout_s
        self._snapshot = snapshot
        self._picker = picker
        self._places = places
        self._job_places = job_places
        self._siblings = siblings
        self._gate = gate
        self._holding = holding
        self._observer = observer
        self._knobs = knobs
        self._loop = asyncio.get_running_loop()
        self._tick: asyncio.TimerHandle | None = None

    async def wait(self, job: Job, failed: set[str], coming: Outlook | None = None) -> Decision:
        """Wait for room, or for an endpoint that is `coming`. Whoever leaves is out of the queue at once."""
        key = job.wish.model.name, job.wish.profile
        group = self.groups.get(key) or self._open(*key)
        now_s = self._loop.time()
        try:
            if coming is not None:
                self._admit_held(group, job, coming)
            elif not job.dispatched:
                self._admit(group, job)
            waiter = Waiter(job, failed, self._loop.create_future(), now_s)
            ticket = self._add(group, waiter, now_s)
        except BaseException:
            self._close_if_empty(group)
            raise
        self._observer.queued(job.wish, job.tokens)
        try:
            if coming is None:
                self._wait_at_most(group, waiter)
                self._look(group)
            else:
                self._hold(group, waiter)
            return await waiter.done
        finally:
            self._holding.end(waiter)
            if waiter.timer is not None:
                waiter.timer.cancel()
            group.queue.remove(ticket)
            group.waiters.pop(waiter, None)
            self._close_if_empty(group)
            self._observer.unqueued(job.wish, job.tokens, self._loop.time() - now_s)

    def room(self, model: str, profile: str) -> None:
        """An endpoint of this profile may have room: its own profile's requests come first."""
        groups = [group for group in self.groups.values() if group.model == model]
        for group in sorted(groups, key=lambda group: group.profile != profile):
            self._look(group)

    def look(self) -> None:
        """There may be room anywhere."""
        for group in list(self.groups.values()):
            self._look(group)

    def review(self) -> None:
        """Endpoints came or went: whoever is held, and whoever waits for room, looks again."""
        for group in list(self.groups.values()):
            self._review(group)
            self._look(group)

    def _wait_at_most(self, group: Group, waiter: Waiter) -> None:
        """From now on it waits as long as its profile lets it."""
        if waiter.timer is not None:
            waiter.timer.cancel()
        waiter.timer = self._loop.call_later(group.knobs.max_wait_s, self._timed_out, group, waiter)

    def _admit_held(self, group: Group, job: Job, coming: Outlook) -> None:
        try:
            self._holding.admit(job, coming, queue_is_full=group.queue.is_full)
        except ColdModelError as error:
            self._observer.refused(job.wish, reason_of(error))
            raise

    def _hold(self, group: Group, waiter: Waiter) -> None:
        """No endpoint is up for it: it is held until one is, or for as long as it may be."""
        if waiter.timer is not None:
            waiter.timer.cancel()
        limit_s = self._holding.limit_s(waiter.job)
        waiter.timer = self._loop.call_later(limit_s, self._held_too_long, group, waiter)
        self._holding.begin(waiter)

    def _review(self, group: Group) -> None:
        """Endpoints came or went, or are expected at another time: what that means for who is held."""
        for waiter in list(group.waiters):
            if waiter.held_s is None:
                continue
            coming = self._holding.coming(waiter.job)
            if coming is None:
                self._holding.end(waiter)
                self._wait_at_most(group, waiter)
            elif coming.under_way and coming.eta_s > self._holding.limit_s(waiter.job):
                self._give_up(group, waiter, coming)

    def _held_too_long(self, group: Group, waiter: Waiter) -> None:
        coming = self._holding.coming(waiter.job)
        if coming is None:
            self._fail(group, waiter, _nothing(waiter.job, "none_ready"))
        else:
            self._give_up(group, waiter, coming)

    def _give_up(self, group: Group, waiter: Waiter, coming: Outlook) -> None:
        error = ColdModelError(waiter.job.wish.model.name, coming.eta_s)
        self._observer.refused(waiter.job.wish, reason_of(error))
        self._fail(group, waiter, error)

    def _add(self, group: Group, waiter: Waiter, now_s: float) -> Ticket[Waiter]:
        job, queue = waiter.job, group.queue
        allowed_s = self._gate.allowed_s(job)
        due_s = now_s + (allowed_s if math.isfinite(allowed_s) else group.knobs.ttft_target_s)
        if job.dispatched:
            ticket = queue.add_back(waiter, job.tokens, now_s, due_s)
        else:
            ticket = queue.add(
                waiter,
                tenant=job.tenant,
                weight=job.weight,
                priority=job.priority,
                cost=service(job.tokens - job.output_tokens, job.output_tokens),
                tokens=job.tokens,
                now_s=now_s,
                deadline_s=due_s,
                is_ahead=self._job_places.is_ahead(job),
            )
        group.waiters[waiter] = ticket
        return ticket

    def _admit(self, group: Group, job: Job) -> None:
        """Let the request into the queue. Raises the refusal where it may not come in."""
        queue = group.queue
        verdict = self._gate.into_queue(job, queue, group.drain)
        if verdict.reason == "queue_full":
            victim = queue.victim(job.tenant, job.weight, job.priority)
            if victim is not None:
                self._refuse(group, victim.load, verdict)
                return
        if verdict.action == "refuse":
            raise self._gate.refusal(job, verdict)

    def _look(self, group: Group) -> None:
        """Let as many go as there is room for."""
        while group.waiters:
            endpoints = self._snapshot().endpoints.get(group.model, ())
            if all(endpoint.name in self._places.full for endpoint in endpoints):
                return
            ticket = group.queue.take(self._may_go)
            if ticket is None:
                return
            waiter, now_s = ticket.load, self._loop.time()
            group.waiters.pop(waiter, None)
            if waiter.refusal is not None or waiter.done.done() or waiter.decision is None:
                group.queue.settle(ticket, 0.0)
                if waiter.refusal is not None and not waiter.done.done():
                    waiter.done.set_exception(self._gate.refusal(waiter.job, waiter.refusal))
                continue
            group.drain.left(ticket.tokens, now_s)
            job = waiter.job
            if not job.dispatched:
                job.charge = partial(settle, group.queue, ticket)
            self._job_places.take(job, waiter.decision, need_of(job))
            waiter.done.set_result(waiter.decision)

    def _may_go(self, waiter: Waiter) -> Answer:
        """Whether a request that is at the head of its tenant goes now; keeps the decision with it."""
        if waiter.done.done():
            return "go"  # its client has left: out of the way
        job, need = waiter.job, need_of(waiter.job)
        waited_s = self._loop.time() - waiter.entered_s
        if waiter.failed and waited_s > _RETRY_FAILED_S:
            waiter.failed.clear()
        decision = self._picker.decide(job, waiter.failed | self._job_places.closed(job, need))
        if decision.endpoint is None:
            # Where only its size keeps it waiting, smaller ones must not slip past it for ever.
            fits_when_small = self._picker.decide(job, waiter.failed | self._job_places.closed(job, Held(1)))
            return "pass" if fits_when_small.endpoint is None else "stop"
        if self._siblings and self._siblings.lead_for(job) is not None:
            return "pass"
        waiter.decision = decision
        if not job.dispatched:
            waiter.refusal = self._gate.at_endpoint(job, decision.endpoint.name, waited_s)
        return "go"

    def _timed_out(self, group: Group, waiter: Waiter) -> None:
        """It waited as long as its profile lets it: 429 where capacity exists, 503 where it does not."""
        if self._picker.decide(waiter.job, set()).endpoint is None:
            self._fail(group, waiter, _nothing(waiter.job, "none_ready"))
            return
        self._refuse(group, waiter, self._gate.timed_out(group.queue, group.drain))

    def _refuse(self, group: Group, waiter: Waiter, verdict: Verdict) -> None:
        self._fail(group, waiter, self._gate.refusal(waiter.job, verdict))

    def _fail(self, group: Group, waiter: Waiter, error: RouterError) -> None:
        """Take a request out of the queue and tell it why."""
        ticket = group.waiters.pop(waiter, None)
        if ticket is not None:
            group.queue.remove(ticket)
        if not waiter.done.done():
            waiter.done.set_exception(error)

    def _open(self, model: str, profile: str) -> Group:
        knobs = self._knobs(profile)
        group = Group(
            model,
            profile,
            knobs,
            FairQueue(knobs.order, knobs.queue_limit, length_ratio=knobs.cohort_length_ratio),
        )
        group.drain.began(self._loop.time())
        self.groups[model, profile] = group
        if self._tick is None:
            self._tick = self._loop.call_later(_TICK_S, self._on_tick)
        return group

    def _close_if_empty(self, group: Group) -> None:
        if not group.waiters and self.groups.get((group.model, group.profile)) is group:
            del self.groups[group.model, group.profile]

    def _on_tick(self) -> None:
        self._tick = None
        now_s = self._loop.time()
        for group in list(self.groups.values()):
            endpoints = self._snapshot().endpoints.get(group.model, ())
            if any(endpoint.state == "ready" and endpoint.weight > 0 for endpoint in endpoints):
                group.deserted_s = None
                self._look(group)
            elif group.deserted_s is None:
                group.deserted_s = now_s
                for waiter in list(group.waiters):
                    if waiter.held_s is None and self._holding.coming(waiter.job) is not None:
                        self._hold(group, waiter)
            elif now_s - group.deserted_s >= self._no_endpoint_timeout_s:
                for waiter in [one for one in group.waiters if one.held_s is None]:
                    self._fail(group, waiter, _nothing(waiter.job, "none_ready"))
        if self.groups:
            self._tick = self._loop.call_later(_TICK_S, self._on_tick)


def _nothing(job: Job, reason: str) -> NoEndpointsError:
    return NoEndpointsError(f"The model {job.wish.model.name!r} has no endpoint that is ready ({reason}).")
