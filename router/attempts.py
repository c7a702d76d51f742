"""The attempt loop: one request, as many endpoints as it takes, one end.

A failed attempt's lease is back before the next pick. Before the first token a safe failure moves on; after
it, a token-id stream goes on at another endpoint with what was generated so far, and anything else ends
broken.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from inference.client import ModelClients
from inference.errors import InferenceError
from inference.request import InferenceRequest, Usage
from inference.sink import Call, FinishReason, Sink
from model_registry.entities import Endpoint
from model_registry.snapshot import Snapshot
from router.config import RouterConfig
from router.errors import AttemptsExhaustedError, NoEndpointsError
from router.ledger import Ledger
from router.pick import Decision, candidates, pick
from router.profiles import Wish
from telemetry.request_trace import AttemptTrace, RequestTrace

_BACKOFF_S = 0.05
_MAX_BACKOFF_S = 0.4


class Finished(NamedTuple):
    """A clean end. `reason` is None where the server does not tell."""

    reason: FinishReason | None
    usage: Usage
    endpoint: Endpoint
    attempts: int
    continued: int
    """Streams that were broken and went on elsewhere."""


class Answer(Sink, Protocol):
    """What all attempts of one request push to; it lives longer than any of them."""

    started: bool
    """Something of the answer was pushed: another attempt may not begin anew."""

    def attempt_begins(self, trace: AttemptTrace, outcome: asyncio.Future[Outcome]) -> None:
        """A new attempt pushes from now on; `outcome` takes what its `end` or `lost` says first."""

    def attempt_runs(self, call: Call) -> None:
        """The attempt's call, to pause, resume or cancel it."""

    def continuation(self, request: InferenceRequest) -> InferenceRequest | None:
        """The rest of a broken answer as a new request; None where it cannot be continued."""


Outcome = tuple[FinishReason | None, Usage] | InferenceError


class AttemptObserver(Protocol):
    """Learns how attempts went, for metrics."""

    def attempt(self, endpoint: Endpoint, outcome: str) -> None: ...

    def retried(self, wish: Wish) -> None: ...

    def continued(self, wish: Wish) -> None: ...


@dataclass(slots=True)
class Job:
    """One request on its way: what is asked, of which model, and what is known of its size."""

    request: InferenceRequest
    wish: Wish
    tokens: int
    """Prompt tokens and expected output."""
    trace: RequestTrace
    lanes: frozenset[str] | None = None
    """Lanes that can serve it; None: any."""


class Router:
    """Finds endpoints for jobs and runs them; owned by one gateway process."""

    def __init__(
        self,
        config: RouterConfig,
        clients: ModelClients,
        snapshot: Callable[[], Snapshot],
        observer: AttemptObserver,
    ) -> None:
        self.config = config
        self.ledger = Ledger()
        self._clients = clients
        self._snapshot = snapshot
        self._observer = observer
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()

    def registry_changed(self) -> None:
        """A new snapshot is there: who waits for an endpoint looks again."""
        self._changed.set()
        self._changed = asyncio.Event()
        endpoints = [endpoint for group in self._snapshot().endpoints.values() for endpoint in group]
        self.ledger.retain({endpoint.name for endpoint in endpoints})
        self._clients.retain(endpoints)

    async def run(self, job: Job, answer: Answer) -> Finished:
        """Push the answer of `job` into `answer`, wherever it comes from.

        Raises InferenceError (the request was refused, or its stream broke), NoEndpointsError or
        AttemptsExhaustedError. Cancelling it cancels at the engine.
        """
        failed: set[str] = set()
        attempts = continued = 0
        last: InferenceError | None = None
        while True:
            endpoint = await self._route(job, failed, last)
            attempts += 1
            outcome = await self._attempt(endpoint, job, answer)
            if not isinstance(outcome, InferenceError):
                self._observer.attempt(endpoint, "ok")
                return Finished(*outcome, endpoint, attempts, continued)
            self._observer.attempt(endpoint, outcome.outcome)
            if not outcome.retry_safe:
                raise outcome
            if answer.started:
                self._continue(job, answer, outcome)
                continued += 1
                last, failed = None, {endpoint.name}
                continue
            if attempts - continued >= self.config.max_attempts:
                raise AttemptsExhaustedError(f"{attempts} attempts failed; the last: {outcome}", outcome)
            self._observer.retried(job.wish)
            failed.add(endpoint.name)
            last = outcome

    def _continue(self, job: Job, answer: Answer, error: InferenceError) -> None:
        rest = answer.continuation(job.request) if self.config.continue_streams else None
        if rest is None:
            raise error
        self._observer.continued(job.wish)
        job.request = rest
        job.lanes = frozenset({"tensorrt_llm"})

    async def _attempt(self, endpoint: Endpoint, job: Job, answer: Answer) -> Outcome:
        now_s = self._loop.time()
        done: asyncio.Future[Outcome] = self._loop.create_future()
        trace = job.trace.attempt(endpoint.name, endpoint.lane, endpoint.target)
        request = job.request
        request.traceparent = trace.traceparent
        with self.ledger.lease(endpoint.name, job.tokens) as load:
            load.breaker = load.breaker.dispatched(now_s, self.config)
            answer.attempt_begins(trace, done)
            try:
                call = self._clients.of(endpoint).start(request, answer)
            except InferenceError as error:
                load.breaker = load.breaker.released()
                trace.finished(error.outcome)
                return error
            answer.attempt_runs(call)
            try:
                outcome = await done
            except BaseException:
                call.cancel()
                load.breaker = load.breaker.released()
                trace.finished("cancelled")
                self._observer.attempt(endpoint, "cancelled")
                raise
            if not isinstance(outcome, InferenceError):
                load.breaker = load.breaker.succeeded()
                trace.finished(None)
            else:
                if outcome.endpoint_fault:
                    load.breaker = load.breaker.failed(self._loop.time(), self.config)
                else:
                    load.breaker = load.breaker.released()
                trace.finished(outcome.outcome)
            return outcome

    async def _route(self, job: Job, failed: set[str], last: InferenceError | None) -> Endpoint:
        """The endpoint for the next attempt."""
        job.trace.route_started()
        decision = self._decide(job, failed)
        if decision.endpoint is None:
            decision = await self._wait_for_endpoint(job, failed, decision)
        endpoint = decision.endpoint
        name = None if endpoint is None else endpoint.name
        job.trace.route_finished(profile=job.wish.profile, reason=decision.reason, endpoint=name)
        if endpoint is not None:
            return endpoint
        if last is not None:
            raise AttemptsExhaustedError(f"no other endpoint became ready; the last failure: {last}", last)
        raise NoEndpointsError(
            f"The model {job.wish.model.name!r} has no endpoint that is ready ({decision.reason})."
        )

    async def _wait_for_endpoint(self, job: Job, failed: set[str], decision: Decision) -> Decision:
        """The first decision for an endpoint, or the last one for none when that took too long."""
        deadline_s = self._loop.time() + self.config.no_endpoint_timeout_s
        backoff_s = _BACKOFF_S
        while decision.endpoint is None and (left_s := deadline_s - self._loop.time()) > 0:
            changed = self._changed
            try:
                async with asyncio.timeout(min(backoff_s, left_s)):
                    await changed.wait()
            except TimeoutError:
                backoff_s = min(2 * backoff_s, _MAX_BACKOFF_S)
                failed.clear()  # all were tried: one that failed may be back by now
            decision = self._decide(job, failed)
        return decision

    def _decide(self, job: Job, failed: set[str]) -> Decision:
        endpoints = self._snapshot().endpoints.get(job.wish.model.name, ())
        if job.lanes is not None:
            endpoints = tuple(endpoint for endpoint in endpoints if endpoint.lane in job.lanes)
        choices = candidates(endpoints, self.ledger, self._loop.time(), self.config)
        return pick(job.wish.profile, choices, job.tokens, failed)
