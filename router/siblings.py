"""Siblings: live requests that wait for one that begins alike. Owned by one event loop.

Who waits for whom is `router.cohorts`; this gathers the values that it decides by, and does the waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from model_registry.knobs import Knobs
from router.cohorts import Cohorts, Lead
from router.job import Job


class Siblings:
    """One gateway process's. It is true while there is anybody to wait for."""

    def __init__(self, knobs: Callable[[str], Knobs], released: Callable[[Job], None]) -> None:
        """`released` is told of a request for which nobody waits any more."""
        self._knobs = knobs
        self._released = released
        self._cohorts = Cohorts()
        self._loop = asyncio.get_running_loop()
        self.held = 0
        """Requests that have waited so."""

    def __bool__(self) -> bool:
        return bool(self._cohorts)

    def begin(self, job: Job, endpoint: str) -> None:
        """The request goes to `endpoint`: from now on others that begin alike may wait for it."""
        if job.lead is not None:  # in the place of one that is gone
            job.lead.endpoint = endpoint
            return
        knobs = job.knobs
        if knobs is None or not knobs.cohort_wait_ms or job.dispatched or job.spare is not None:
            return
        if job.asks is None or job.considered is None:
            return
        ask, least = job.asks[1], knobs.cohort_prefix_tokens
        if len(ask.blocks) * ask.block_tokens < least:
            return
        view = next(one.view for one in job.considered.candidates if one.view.name == endpoint)
        due_s, now_s = view.ttft_s(ask), self._loop.time()
        wait_s = knobs.cohort_wait_ms / 1000
        model, cached = job.wish.model.name, view.cached_tokens
        job.lead = self._cohorts.begins(model, endpoint, ask, cached, due_s, now_s, wait_s, least)
        if job.lead is not None and not job.request.stream:  # nothing tells when its prompt is computed
            self._loop.call_later(due_s, self.computed, job)

    def lead_for(self, job: Job) -> Lead | None:
        """Whom the request should wait for, now that it was considered where it might go.

        In the place of one that is gone it goes itself, and the others wait for it.
        """
        if job.lead is not None:
            return None
        if job.dispatched or job.spare is not None or job.asks is None or job.considered is None:
            return None
        wait_s = self._knobs(job.wish.profile).cohort_wait_ms / 1000
        now_s = self._loop.time()
        until_s = job.held_until_s
        if not wait_s or (until_s is not None and until_s <= now_s):
            return None
        holders = [
            (one.view.name, one.view.cached_tokens)
            for one in job.considered.candidates
            if one.breaker_admits and one.endpoint.state == "ready"
        ]
        lead = self._cohorts.lead(job.wish.model.name, job.asks[1], holders, now_s)
        if lead is not None and lead.is_left:
            lead.is_left, job.lead = False, lead
            return None
        if lead is not None and until_s is None:
            job.held_until_s = now_s + wait_s
            self.held += 1
        return lead

    async def wait(self, lead: Lead, job: Job) -> None:
        """Wait until the lead's prompt is computed, no longer than it may be waited for."""
        assert job.held_until_s is not None
        over: asyncio.Future[None] = self._loop.create_future()
        lead.when_over.append(partial(_end, over))
        until_s = min(lead.until_s, job.held_until_s)
        await asyncio.wait((over,), timeout=max(0.0, until_s - self._loop.time()))

    def computed(self, job: Job) -> None:
        """The request's prompt is computed: whoever waits for it goes."""
        lead, job.lead = job.lead, None
        if lead is not None:
            self._cohorts.over(lead)
            self._released(job)

    def ended(self, job: Job) -> None:
        """The request is over, or goes elsewhere: without a first token, where that would have been seen."""
        if not job.request.stream:
            self.computed(job)
            return
        lead, job.lead = job.lead, None
        if lead is not None:
            if self._cohorts.left(lead):
                self._loop.call_at(lead.until_s, self._cohorts.over, lead)
            self._released(job)


def _end(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
