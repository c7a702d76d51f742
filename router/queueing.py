"""Queueing: where requests wait for an endpoint, and when they stop waiting. Owned by one event loop.

A request that finds room goes at once: that path is a few attribute reads. One that begins like another that
is just being computed waits a moment for that one (`router.siblings`). While the endpoints of its model
are full it waits in the fair queue of its deployment group (model and profile) until one of their windows has
room. While there is none at all it waits in the waiting room, or, where one is brought up, is held: it keeps
its turn in that queue (`router.holding`). Whatever gives room lets as many go as fit; a slow tick makes up
for what nobody tells (a breaker that half-opens, a window that grew).
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Set
from functools import partial
from typing import TYPE_CHECKING, Protocol

from inference.request import Usage
from model_registry.knobs import Knobs, knobs_of
from model_registry.snapshot import Snapshot
from router.admission import Verdict, allowed_ttft_s, service
from router.capacity import Capacity
from router.config import RouterConfig
from router.deciding import Dispatched
from router.demand import Waiting
from router.errors import ColdModelError, NoEndpointsError, RouterError
from router.fair_queue import FairQueue
from router.gate import Forecast, Gate
from router.holding import Holding, Outlook, reason_of
from router.pick import Decision
from router.places import Place, Places
from router.profiles import Wish
from router.siblings import Siblings
from router.tenant_turns import Answer, Ticket
from router.timing import UNTIMED, Timing
from router.under_way import UnderWay
from router.waiting import Group, Waiter, need_of, settle, uncached_of
from router.window import Held

if TYPE_CHECKING:
    from router.attempts import Job

_TICK_S = 0.05
_BACKOFF_S = 0.05
_MAX_BACKOFF_S = 0.4


class QueueObserver(Protocol):
    """Learns who waits, whose first token was late and who is refused, for metrics."""

    def queued(self, wish: Wish, tokens: int) -> None: ...

    def unqueued(self, wish: Wish, tokens: int, waited_s: float) -> None: ...

    def first_token(self, wish: Wish, *, late: bool) -> None: ...

    def refused(self, wish: Wish, reason: str) -> None: ...


class Queueing:
    """Places and queues of one gateway process.

    `decide` picks an endpoint for a job, some being excluded; `is_served` says whether one is up that may
    serve it, whatever its load.
    """

    def __init__(
        self,
        config: RouterConfig,
        snapshot: Callable[[], Snapshot],
        decide: Callable[[Job, set[str]], Decision],
        is_served: Callable[[Job], bool],
        forecast: Forecast,
        observer: QueueObserver,
        knobs: Callable[[str], Knobs] = knobs_of,
        capacity: Capacity | None = None,
    ) -> None:
        self.places = Places(knobs, capacity)
        if capacity is not None:
            capacity.on_change(self._shared_anew)
        self.waiting: Counter[str] = Counter()
        """Requests that wait for an endpoint, by model; those that use spare capacity only don't count."""
        self._config = config
        self._snapshot = snapshot
        self._decide = decide
        self.holding = Holding(config.holding, snapshot, is_served)
        self.on_held: Callable[[], None] | None = None
        """Called when a request comes to be held for a model for which none was."""
        self._observer = observer
        self._knobs = knobs
        self._loop = asyncio.get_running_loop()
        self._groups: dict[tuple[str, str], Group] = {}
        self._under_way: dict[str, UnderWay] = {}
        """By model; of requests that use spare capacity only there are none."""
        self._siblings = Siblings(knobs, self._release)
        self._gate = Gate(snapshot, forecast, knobs)
        self._changed = asyncio.Event()
        self._tick: asyncio.TimerHandle | None = None

    def at_once(self, job: Job, failed: set[str]) -> Decision | None:
        """An endpoint for `job` with a place taken there; None: it has to wait. Raises NoRoomError."""
        if job.dispatched:
            self._leave_place(job)
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
        self._leave_place(job)
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
        for group in list(self._groups.values()):
            self._review(group)
            self._look(group)

    def room(self, model: str, profile: str) -> None:
        """An endpoint of this profile may have room: its own profile's requests come first."""
        groups = [group for group in self._groups.values() if group.model == model]
        for group in sorted(groups, key=lambda group: group.profile != profile):
            self._look(group)

    def _shared_anew(self) -> None:
        """Gateway processes have changed slots with each other."""
        self.places.shared_anew()
        for group in list(self._groups.values()):
            self._look(group)

    def _waits(self, model: str, more: int) -> None:
        self.waiting[model] += more
        self.places.wanted(self._snapshot().endpoints.get(model, ()), self.waiting[model])

    def _at_once(self, job: Job, failed: set[str]) -> Decision | None:
        """The decision where nobody waits and there is room; None: it has to wait, in the queue or `behind`
        another."""
        job.behind = None
        if self._groups and job.spare is None and (job.wish.model.name, job.wish.profile) in self._groups:
            return None
        need, places = need_of(job), self.places
        excluded = failed | self._closed(job, need) if places.full or places.bounded else failed
        decision = self._decide(job, excluded)
        if decision.endpoint is None:
            return None
        if self._siblings and (lead := self._siblings.lead_for(job)) is not None:
            job.behind = lead
            return None
        if job.spare is None and not job.dispatched:
            verdict = self._gate.at_endpoint(job, decision.endpoint.name, 0.0)
            if verdict is not None:
                raise self._refusal(job, verdict)
        return self._go(job, decision, need)

    def _go(self, job: Job, decision: Decision, need: Held) -> Decision:
        assert decision.endpoint is not None
        job.place = self.places.take(decision.endpoint, need)
        if job.spare is None:
            self._under_way_of(job).begin(job.tenant, job.weight)
        self._siblings.begin(job, decision.endpoint.name)
        job.dispatched = True
        return decision

    def _release(self, lead: Job) -> None:
        """Whoever waited in the queue for a prompt to be computed may go."""
        if self._groups:
            self.room(lead.wish.model.name, lead.wish.profile)

    def _leave_place(self, job: Job) -> None:
        if job.lead is not None:
            self._siblings.ended(job)
        place = job.place
        if place is not None:
            job.place = None
            self.places.leave(place)
            if job.spare is None:
                self._end_under_way(job)
            if self._groups:
                self.room(place.endpoint.model, place.endpoint.profile)

    def _under_way_of(self, job: Job) -> UnderWay:
        model = job.wish.model.name
        known = self._under_way.get(model)
        if known is None:
            known = self._under_way[model] = UnderWay()
        return known

    def _end_under_way(self, job: Job) -> None:
        under_way = self._under_way_of(job)
        under_way.end(job.tenant)
        if len(under_way) == 0:
            del self._under_way[job.wish.model.name]

    def _closed(self, job: Job, need: Held) -> Set[str]:
        """Endpoints that the request may not go to now: the full ones, and where its profile does not spill
        over, those of others."""
        full = self.places.full_for(need)
        if not full or self._knobs(job.wish.profile).spill_when_full:
            return full
        endpoints = self._snapshot().endpoints.get(job.wish.model.name, ())
        profile = job.wish.profile
        if not any(one.name in full and one.profile == profile and one.state == "ready" for one in endpoints):
            return full
        return full | {one.name for one in endpoints if one.profile != profile}

    async def _wait(self, job: Job, failed: set[str]) -> Decision:
        """In the waiting room while nothing may serve the request, in the queue while what may is full."""
        deadline_s = self._loop.time() + self._config.no_endpoint_timeout_s
        backoff_s = _BACKOFF_S
        while True:
            decision = self._decide(job, failed)
            if job.spare is None:
                coming = None if decision.endpoint is not None else self.holding.coming(job)
                if decision.endpoint is not None or coming is not None:
                    return await self._queue(job, failed, coming)
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

    async def _queue(self, job: Job, failed: set[str], coming: Outlook | None = None) -> Decision:
        """Wait for room, or for an endpoint that is `coming`. Whoever leaves is out of the queue at once."""
        key = job.wish.model.name, job.wish.profile
        group = self._groups.get(key) or self._open(*key)
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
            self.holding.end(waiter)
            if waiter.timer is not None:
                waiter.timer.cancel()
            group.queue.remove(ticket)
            group.waiters.pop(waiter, None)
            self._close_if_empty(group)
            self._observer.unqueued(job.wish, job.tokens, self._loop.time() - now_s)

    def _wait_at_most(self, group: Group, waiter: Waiter) -> None:
        """From now on it waits as long as its profile lets it."""
        if waiter.timer is not None:
            waiter.timer.cancel()
        waiter.timer = self._loop.call_later(group.knobs.max_wait_s, self._timed_out, group, waiter)

    def _admit_held(self, group: Group, job: Job, coming: Outlook) -> None:
        try:
            self.holding.admit(job, coming, queue_is_full=group.queue.is_full)
        except ColdModelError as error:
            self._observer.refused(job.wish, reason_of(error))
            raise

    def _hold(self, group: Group, waiter: Waiter) -> None:
        """No endpoint is up for it: it is held until one is, or for as long as it may be."""
        if waiter.timer is not None:
            waiter.timer.cancel()
        limit_s = self.holding.limit_s(waiter.job)
        waiter.timer = self._loop.call_later(limit_s, self._held_too_long, group, waiter)
        if self.holding.begin(waiter) and self.on_held is not None:
            self.on_held()

    def _review(self, group: Group) -> None:
        """Endpoints came or went, or are expected at another time: what that means for who is held."""
        for waiter in list(group.waiters):
            if waiter.held_s is None:
                continue
            coming = self.holding.coming(waiter.job)
            if coming is None:
                self.holding.end(waiter)
                self._wait_at_most(group, waiter)
            elif coming.under_way and coming.eta_s > self.holding.limit_s(waiter.job):
                self._give_up(group, waiter, coming)

    def _held_too_long(self, group: Group, waiter: Waiter) -> None:
        coming = self.holding.coming(waiter.job)
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
                is_ahead=self._under_way_of(job).is_ahead(job.tenant, job.weight),
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
            raise self._refusal(job, verdict)

    def _look(self, group: Group) -> None:
        """Let as many go as there is room for."""
        while group.waiters:
            endpoints = self._snapshot().endpoints.get(group.model, ())
            if all(endpoint.name in self.places.full for endpoint in endpoints):
                return
            ticket = group.queue.take(self._may_go)
            if ticket is None:
                return
            waiter, now_s = ticket.load, self._loop.time()
            group.waiters.pop(waiter, None)
            if waiter.refusal is not None or waiter.done.done() or waiter.decision is None:
                group.queue.settle(ticket, 0.0)
                if waiter.refusal is not None and not waiter.done.done():
                    waiter.done.set_exception(self._refusal(waiter.job, waiter.refusal))
                continue
            group.drain.left(ticket.tokens, now_s)
            job = waiter.job
            if not job.dispatched:
                job.charge = partial(settle, group.queue, ticket)
            self._go(job, waiter.decision, need_of(job))
            waiter.done.set_result(waiter.decision)

    def _may_go(self, waiter: Waiter) -> Answer:
        """Whether a request that is at the head of its tenant goes now; keeps the decision with it."""
        if waiter.done.done():
            return "go"  # its client has left: out of the way
        job, need = waiter.job, need_of(waiter.job)
        waited_s = self._loop.time() - waiter.entered_s
        if waiter.failed and waited_s > _MAX_BACKOFF_S:
            waiter.failed.clear()
        decision = self._decide(job, waiter.failed | self._closed(job, need))
        if decision.endpoint is None:
            # Where only its size keeps it waiting, smaller ones must not slip past it for ever.
            fits_when_small = self._decide(job, waiter.failed | self._closed(job, Held(1)))
            return "pass" if fits_when_small.endpoint is None else "stop"
        if self._siblings and self._siblings.lead_for(job) is not None:
            return "pass"
        waiter.decision = decision
        if not job.dispatched:
            waiter.refusal = self._gate.at_endpoint(job, decision.endpoint.name, waited_s)
        return "go"

    def _timed_out(self, group: Group, waiter: Waiter) -> None:
        """It waited as long as its profile lets it: 429 where capacity exists, 503 where it does not."""
        if self._decide(waiter.job, set()).endpoint is None:
            self._fail(group, waiter, _nothing(waiter.job, "none_ready"))
            return
        self._refuse(group, waiter, self._gate.timed_out(group.queue, group.drain))

    def _refuse(self, group: Group, waiter: Waiter, verdict: Verdict) -> None:
        self._fail(group, waiter, self._refusal(waiter.job, verdict))

    def _fail(self, group: Group, waiter: Waiter, error: RouterError) -> None:
        """Take a request out of the queue and tell it why."""
        ticket = group.waiters.pop(waiter, None)
        if ticket is not None:
            group.queue.remove(ticket)
        if not waiter.done.done():
            waiter.done.set_exception(error)

    def _refusal(self, job: Job, verdict: Verdict) -> RouterError:
        self._observer.refused(job.wish, verdict.reason)
        return self._gate.error(job, verdict)

    def _open(self, model: str, profile: str) -> Group:
        knobs = self._knobs(profile)
        group = Group(
            model,
            profile,
            knobs,
            FairQueue(knobs.order, knobs.queue_limit, length_ratio=knobs.cohort_length_ratio),
        )
        group.drain.began(self._loop.time())
        self._groups[model, profile] = group
        if self._tick is None:
            self._tick = self._loop.call_later(_TICK_S, self._on_tick)
        return group

    def _close_if_empty(self, group: Group) -> None:
        if not group.waiters and self._groups.get((group.model, group.profile)) is group:
            del self._groups[group.model, group.profile]

    def _on_tick(self) -> None:
        self._tick = None
        now_s = self._loop.time()
        for group in list(self._groups.values()):
            endpoints = self._snapshot().endpoints.get(group.model, ())
            if any(endpoint.state == "ready" and endpoint.weight > 0 for endpoint in endpoints):
                group.deserted_s = None
                self._look(group)
            elif group.deserted_s is None:
                group.deserted_s = now_s
                for waiter in list(group.waiters):
                    if waiter.held_s is None and self.holding.coming(waiter.job) is not None:
                        self._hold(group, waiter)
            elif now_s - group.deserted_s >= self._config.no_endpoint_timeout_s:
                for waiter in [one for one in group.waiters if one.held_s is None]:
                    self._fail(group, waiter, _nothing(waiter.job, "none_ready"))
        if self._groups:
            self._tick = self._loop.call_later(_TICK_S, self._on_tick)


def _nothing(job: Job, reason: str) -> NoEndpointsError:
    return NoEndpointsError(f"The model {job.wish.model.name!r} has no endpoint that is ready ({reason}).")
