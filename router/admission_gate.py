"""Admission gate: admission's verdicts on live requests. Owned by one event loop.

Gathers the values that `router.admission` and `router.shedding` decide by: forecasts, the queue, knobs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from model_registry.knobs import Knobs
from model_registry.snapshot import Snapshot
from router.admission import Drain, Standing, Verdict, admit, allowed_ttft_s, retry_after_s
from router.deciding import Expected
from router.errors import NoRoomError, PredictedLateError, QueueFullError, QueueTimeoutError, ShedError
from router.fair_queue import FairQueue
from router.job import Job
from router.observer import QueueObserver
from router.shedding import MEMORY_S, Shedding

_ERRORS: dict[str, type[NoRoomError]] = {
    "queue_full": QueueFullError,
    "queue_timeout": QueueTimeoutError,
    "predicted_late": PredictedLateError,
    "shed": ShedError,
}


class AdmissionGate:
    """One gateway process's."""

    def __init__(
        self,
        snapshot: Callable[[], Snapshot],
        forecast: Callable[[Job, str | None], Expected],
        observer: QueueObserver,
        knobs: Callable[[str], Knobs],
    ) -> None:
        """`forecast`: of a job's first token at an endpoint; at None: at the one where it comes soonest."""
        self._snapshot = snapshot
        self._forecast = forecast
        self._observer = observer
        self._knobs = knobs
        self._loop = asyncio.get_running_loop()
        self._sheddings: dict[tuple[str, str], Shedding] = {}

    def allowed_s(self, job: Job) -> float:
        """What the time to first token may be under the request's profile."""
        return allowed_ttft_s(self._knobs(job.wish.profile), self._forecast(job, None).isolated_s)

    def at_endpoint(self, job: Job, endpoint: str, waited_s: float) -> Verdict | None:
        """The refusal of a request that would be sent to `endpoint` now; None: it goes."""
        knobs = job.knobs or self._knobs(job.wish.profile)
        if not knobs.refuse_late and knobs.prefill_share is None:
            return None
        shedding = self._shedding(job, knobs)
        ttft_s, isolated_s = self._forecast(job, endpoint)
        standing = Standing(True, True, ttft_s=ttft_s, isolated_s=isolated_s, waited_s=waited_s)
        verdict = admit(standing, knobs, job.priority)
        if verdict.action == "refuse":
            return verdict
        if shedding is not None:
            engines, now_s = len(self._snapshot().endpoints.get(job.wish.model.name, ())), self._loop.time()
            if shedding.sheds(job.priority, isolated_s, engines, now_s):
                return Verdict("refuse", "shed", MEMORY_S)
            shedding.dispatched(isolated_s, engines, now_s)
        return None

    def into_queue(self, job: Job, queue: FairQueue[Any], drain: Drain) -> Verdict:
        """Whether a request for which there is no room now may wait in `queue`."""
        now_s = self._loop.time()
        ahead = queue.ahead_tokens(job.tenant, job.weight, job.priority) + job.tokens
        ttft_s, isolated_s = self._forecast(job, None)
        standing = Standing(
            exists=True,
            has_room=False,
            is_full=queue.is_full,
            wait_s=drain.seconds_for(ahead, now_s),
            ttft_s=ttft_s,
            isolated_s=isolated_s,
            drain_s=drain.seconds_for(queue.tokens, now_s),
        )
        return admit(standing, self._knobs(job.wish.profile), job.priority)

    def timed_out(self, queue: FairQueue[Any], drain: Drain) -> Verdict:
        """The refusal of a request that has waited as long as it may."""
        seconds = drain.seconds_for(queue.tokens, self._loop.time())
        return Verdict("refuse", "queue_timeout", retry_after_s(seconds))

    def refusal(self, job: Job, verdict: Verdict) -> NoRoomError:
        """What a refusal is to its client, the observer being told of it."""
        self._observer.refused(job.wish, verdict.reason)
        return _ERRORS[verdict.reason](job.wish.model.name, verdict.retry_after_s or 1.0)

    def _shedding(self, job: Job, knobs: Knobs) -> Shedding | None:
        if knobs.prefill_share is None:
            return None
        key = job.wish.model.name, job.wish.profile
        shedding = self._sheddings.get(key)
        if shedding is None or shedding.share != knobs.prefill_share:
            shedding = self._sheddings[key] = Shedding(knobs.prefill_share)
        return shedding
