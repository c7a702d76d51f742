"""Dispatcher: one attempt at one endpoint, from its lease to what it teaches.

What an attempt says of its endpoint goes to the breaker, the paces, the forecasts and the windows before its
lease is back. Owned by the event loop of one gateway process.
"""

from __future__ import annotations

import asyncio
from functools import partial
from time import monotonic

from inference.adapters import Adapters
from inference.client import ModelClients, takes_weights
from inference.errors import (
    AdapterMissingError,
    InferenceError,
    RequestRefusedError,
    ServerFailedError,
    ServerUnreachableError,
    UnsupportedFeatureError,
)
from inference.request import InferenceRequest, Lora, Usage
from inference.sink import Call, Sink
from model_registry.entities import Endpoint
from router.answer import Answer, Outcome, Start
from router.config import RouterConfig
from router.deciding import Deciding, Dispatched
from router.job import Job
from router.ledger import EndpointLoad
from router.observer import AttemptObserver
from router.paces import Paces
from router.placement import Placement, Turn
from router.queueing import Queueing
from router.timing import trace_attributes
from router.view import EndpointView
from telemetry.request_trace import AttemptTrace


class Dispatcher:
    """One gateway process's."""

    def __init__(
        self,
        config: RouterConfig,
        deciding: Deciding,
        paces: Paces,
        placement: Placement,
        queueing: Queueing,
        clients: ModelClients,
        adapters: Adapters,
        observer: AttemptObserver,
    ) -> None:
        self._config = config
        self._deciding = deciding
        self._ledger = deciding.ledger
        self._paces = paces
        self._placement = placement
        self._queueing = queueing
        self._clients = clients
        self._adapters = adapters
        self._observer = observer
        self._loop = asyncio.get_running_loop()

    async def attempt(
        self, endpoint: Endpoint, job: Job, answer: Answer, start: Start | None = None
    ) -> Outcome:
        """Push the answer of `endpoint` into `answer`; how that ended. Cancelling it cancels at the engine.

        `start`: how the call begins; None: as the endpoint's client begins calls.
        """
        now_s, goes_on = self._loop.time(), answer.started
        done: asyncio.Future[Outcome] = self._loop.create_future()
        trace = job.trace.attempt(endpoint.name, endpoint.lane, endpoint.target)
        request = job.request
        request.traceparent = trace.traceparent
        request.tracestate = job.trace.tracestate
        model = job.wish.model.name
        assert job.asks is not None
        assert job.policy is not None
        sent = self._deciding.dispatch(model, endpoint, job.asks[1], job.policy, now_s, _view(job, endpoint))
        lease_of = self._ledger.lease if job.spare is None else self._ledger.spare_lease
        lease = lease_of(endpoint.name, sent.charge)
        with lease as load:
            self._deciding.watch(endpoint.name, request, sent, lease, trace, self._loop.time, goes_on=goes_on)
            if trace.on_first_token is not None and job.place is not None:
                then, learn = trace.on_first_token, self._queueing.first_token
                trace.on_first_token = partial(learn, then, job, job.place, now_s, sent.idle_ttft_s)
            if load.breaker.opened_at_s is not None:
                load.probe(trace, now_s)
            if request.stream and not goes_on:
                self._paces.begins(endpoint, trace, sent.charge.uncached)
            answer.attempt_begins(trace, done)
            call: Call | None = None
            try:
                call = (start or self._clients.of(endpoint).start)(request, answer)
                answer.attempt_runs(call)
                outcome = await done
            except UnsupportedFeatureError as error:
                outcome = error
            except BaseException as error:
                if call is not None:
                    call.cancel()
                load.let_go(trace)
                self._paces.ends(endpoint, trace, None, monotonic())
                ending = "cancelled" if isinstance(error, asyncio.CancelledError) else "failed"
                trace.finished(ending)
                self._observer.attempt(endpoint, ending)
                raise
            if _may_be_the_guides_fault(outcome, endpoint, request) and not answer.started:
                outcome = _impossible_guide(request)
            self._judge(load, trace, outcome, endpoint, job)
            if isinstance(outcome, ServerUnreachableError):
                self._deciding.unreachable(model, endpoint.name)
            if isinstance(outcome, InferenceError):
                trace.finished(outcome.outcome)
                if call is not None:
                    call.cancel()  # an error within a stream leaves the call open; it must push no more
            else:
                trace.finished(None, trace_attributes(outcome[1].engine))
                first_s = lease.first_s if request.stream and not goes_on else None
                self._learn(job, endpoint, sent, outcome[1], first_s, goes_on=goes_on)
            return outcome

    async def with_adapter(self, endpoint: Endpoint, job: Job, answer: Answer, lora: Lora) -> Outcome:
        """An attempt at an engine that may have to be sent the adapter first.

        An engine that has evicted it says so before a first token. It is asked again at once, with the
        weights if nobody else is sending them; should they be gone again by then, with them in any case.
        """
        if not takes_weights(endpoint):
            return await self.attempt(endpoint, job, answer)
        for insist in (False, False, True):
            with await self._placement.turn(endpoint, lora.task_id, insist=insist) as turn:
                outcome = await self._in_turn(turn, endpoint, job, answer)
            job.request.lora = lora
            if isinstance(outcome, ServerUnreachableError):
                self._placement.forget(endpoint.name)
            if not isinstance(outcome, AdapterMissingError):
                break
            turn.missed()
            if not insist:
                self._observer.attempt(endpoint, outcome.outcome)
        return outcome

    async def _in_turn(self, turn: Turn, endpoint: Endpoint, job: Job, answer: Answer) -> Outcome:
        if not turn.sends or job.wish.adapter is None:
            return await self.attempt(endpoint, job, answer)
        lora = job.request.lora = await self._adapters.load(job.wish.adapter)

        def start(request: InferenceRequest, sink: Sink) -> Call:
            watching = turn.watching(sink, lora.task_id)
            return self._clients.sending_weights(endpoint).start(request, watching)

        return await self.attempt(endpoint, job, answer, start)

    def _learn(
        self,
        job: Job,
        endpoint: Endpoint,
        sent: Dispatched,
        usage: Usage,
        first_s: float | None,
        *,
        goes_on: bool,
    ) -> None:
        """What a good answer tells of its endpoint, its window and the load."""
        timing = self._deciding.answered(
            job.wish.model.name, endpoint.name, sent, usage, first_s, self._loop.time()
        )
        if timing.itl_s:
            self._paces.answered(endpoint, timing.itl_s)
        seen = goes_on or first_s is not None
        self._queueing.answered(job, endpoint.name, usage, timing, sent, seen=seen)

    def _judge(
        self, load: EndpointLoad, trace: AttemptTrace, outcome: Outcome, endpoint: Endpoint, job: Job
    ) -> None:
        """What the attempt says of its endpoint; one request counts against an endpoint once at most."""
        now_s, failed = monotonic(), None
        if not isinstance(outcome, InferenceError):
            load.proven(trace, self._config)
            load.answers += 1
            failed = False
        elif outcome.endpoint_fault and endpoint.name not in job.blamed:
            job.blamed.add(endpoint.name)
            load.failed(self._loop.time(), self._config)
            load.failures += 1
            failed = True
        else:
            load.let_go(trace)
        self._paces.ends(endpoint, trace, failed, now_s)


def _view(job: Job, endpoint: Endpoint) -> EndpointView | None:
    """The endpoint as it was picked for `job`; None: the latest decision was for another one."""
    decision = None if job.considered is None else job.considered.decision
    return None if decision is None or decision.endpoint is not endpoint else decision.view


def _may_be_the_guides_fault(outcome: Outcome, endpoint: Endpoint, request: InferenceRequest) -> bool:
    """Not where the engine is known to be broken, nor of an upstream, which names its clients' mistakes."""
    return type(outcome) is ServerFailedError and request.guide is not None and endpoint.lane != "openai-http"


def _impossible_guide(request: InferenceRequest) -> RequestRefusedError:
    """What an engine cannot compile fails within it, in words that tell nothing: no other engine is tried.

    Otherwise one client's schema would fail on every endpoint in turn, and open every breaker.
    """
    names = request.options.names if request.options is not None else {}
    field = names.get("response_format", "response_format")
    return RequestRefusedError(
        f"The engine cannot follow the form that `{field}` asks for. Simplify it.", field
    )
