"""The attempt loop: one request, as many endpoints as it takes, one end.

A failed attempt's lease is back before the next pick. Before the first token a safe failure moves on; after
it, a token-id stream goes on at another endpoint with what was generated so far, and anything else ends
broken.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic, time

from msgspec import Struct

from inference.adapters import Adapters
from inference.client import ModelClients
from inference.errors import InferenceError, UnsupportedFeatureError
from inference.request import Usage
from inference.schema import Schema
from inference.sink import FinishReason
from model_registry.demand.demand import WorkerDemand
from model_registry.entities import Endpoint
from model_registry.knobs import Knobs, knobs_of
from model_registry.snapshot import Snapshot
from router.answer import Answer, Outcome
from router.capacity import Capacity
from router.config import RouterConfig
from router.deciding import Deciding
from router.demand import Demanded
from router.dispatcher import Dispatcher
from router.errors import AttemptsExhaustedError, NoEndpointsError, NoRoomError
from router.explain import Decisions, Explained
from router.hedger import Hedger
from router.holding import Outlook
from router.job import Job
from router.observer import AttemptObserver
from router.paces import Paces
from router.pick import Decision
from router.picker import Picker
from router.placement import Placement
from router.places import Places
from router.queueing import Queueing
from router.retry_budget import RetryBudget, RetryBudgets, why_not
from tenancy.policy import Selection


class Finished(Struct, frozen=True, gc=False):
    """A clean end. `reason` is None where the server does not tell."""

    reason: FinishReason | None
    usage: Usage
    endpoint: Endpoint
    attempts: int
    continued: int
    """Streams that were broken and went on elsewhere."""


class Router:
    """Finds endpoints for jobs and runs them; owned by one gateway process."""

    def __init__(
        self,
        config: RouterConfig,
        clients: ModelClients,
        snapshot: Callable[[], Snapshot],
        observer: AttemptObserver,
        adapters: Adapters,
        knobs: Callable[[str], Knobs] = knobs_of,
        capacity: Capacity | None = None,
    ) -> None:
        self.config = config
        self.deciding = Deciding(config)
        self.ledger = self.deciding.ledger
        self.paces = Paces(config.outliers)
        self.decisions = Decisions(config.explained_decisions)
        self.placement = Placement()
        self.demand = Demanded()
        places = Places(knobs, capacity)
        self.picker = Picker(self.deciding, self.paces, self.placement, places, snapshot, knobs)
        self.queueing = Queueing(config, snapshot, self.picker, places, observer, knobs)
        self.waiting = self.queueing.waiting
        if capacity is not None:
            capacity.on_change(self.queueing.shared_anew)
        self._dispatcher = Dispatcher(
            config, self.deciding, self.paces, self.placement, self.queueing, clients, adapters, observer
        )
        self._hedger = Hedger(config.hedging, self.paces, self.ledger, clients)
        self._budgets = RetryBudgets(config.retries)
        self._places = places
        self._adapters = adapters
        self._knobs = knobs
        self._clients = clients
        self._snapshot = snapshot
        self._observer = observer
        self._loop = asyncio.get_running_loop()

    def registry_changed(self) -> None:
        """A new snapshot is there: who waits for an endpoint looks again."""
        endpoints = [endpoint for group in self._snapshot().endpoints.values() for endpoint in group]
        self.deciding.retain(endpoints)
        self.placement.retain(endpoints)
        self.paces.retain(endpoints)
        self.demand.retain(self._snapshot())
        models = self._snapshot().models
        self._hedger.retain([*models])
        self._budgets.retain(models)
        self._adapters.retain(self._snapshot().adapters.values())
        self._clients.retain(endpoints)
        self.queueing.registry_changed()

    def capacity(self, model: str, lanes: frozenset[str]) -> tuple[int, int | None]:
        """Ready endpoints of `lanes`, and how many embedding inputs one call to any of them may hold.

        None: their servers set no limit.
        """
        endpoints = [
            endpoint
            for endpoint in self._snapshot().endpoints.get(model, ())
            if endpoint.state == "ready" and endpoint.lane in lanes
        ]
        limits = [Schema.from_dict(dict(one.server_schema)).most_inputs for one in endpoints]
        return len(endpoints), min((limit for limit in limits if limit is not None), default=None)

    def coming(self, model: str, selection: Selection | None) -> Outlook | None:
        """When a model should come that has no endpoint which is ready; None: it has, or nobody brings it."""
        endpoints = self._snapshot().endpoints.get(model, ())
        up = any(
            one.state == "ready" and one.weight > 0 and (selection is None or selection.fits(one))
            for one in endpoints
        )
        return None if up else self.queueing.holding.outlook(model, selection)

    async def run(self, job: Job, answer: Answer) -> Finished:
        """Push the answer of `job` into `answer`, wherever it comes from.

        Raises InferenceError (the request was refused, or its stream broke), NoEndpointsError,
        AttemptsExhaustedError or NoRoomError. Cancelling it cancels at the engine.
        """
        usage: Usage | None = None
        if job.spare is None:
            job.arrived_s = self._loop.time()
            job.counts = self.demand.arrived(
                job.wish.model.name, job.wish.profile, job.tokens - job.output_tokens
            )
        try:
            finished = await self._run(job, answer)
            usage = finished.usage
        except (NoEndpointsError, NoRoomError):
            if job.counts is not None:
                job.counts.refused += 1
            raise
        else:
            return finished
        finally:
            self.queueing.ended(job, usage)
            if job.counts is not None:
                job.counts.finished(usage)

    async def _run(self, job: Job, answer: Answer) -> Finished:
        failed: set[str] = set()
        attempts = continued = fruitless = 0
        model, hedges = job.wish.model.name, self._hedges(job)
        budget = self._budgets.began(model, monotonic())
        self._hedger.dispatched(model, job.prompt_tokens)
        last: InferenceError | None = None
        while True:
            attempts += 1
            began_s, job.considered = monotonic(), None
            started_ns = job.trace.route_started()
            try:
                decision = self.queueing.at_once(job, failed) or await self.queueing.wait(job, failed)
            finally:
                self._keep(job, attempts, monotonic() - began_s, last)
            endpoint = self._routed(job, decision, started_ns, last)
            outcome: Outcome
            if job.request.lora is not None:
                outcome = await self._dispatcher.with_adapter(endpoint, job, answer, job.request.lora)
            elif answer.started or not hedges:
                outcome = await self._dispatcher.attempt(endpoint, job, answer)
            else:
                endpoint, outcome = await self._hedged(endpoint, job, answer, failed, attempts)
            if not isinstance(outcome, InferenceError):
                self._observer.attempt(endpoint, "ok")
                return Finished(*outcome, endpoint, attempts, continued)
            self._observer.attempt(endpoint, outcome.outcome)
            if isinstance(outcome, UnsupportedFeatureError):
                job.refused_by |= {endpoint.name}
                self._pass_on(job, outcome, last)
                continue
            last = outcome
            if answer.started:
                if (reason := answer.ended(job.request)) is not None:
                    return Finished(reason, Usage(), endpoint, attempts, continued)
                grew = self._continue(job, answer, outcome)
                continued += 1
                fruitless = 0 if grew else fruitless + 1
                failed = {endpoint.name} if grew else failed | {endpoint.name}
            else:
                failed.add(endpoint.name)
                if not outcome.retry_safe:
                    raise outcome
                fruitless += 1
            if fruitless >= self.config.max_attempts:
                raise AttemptsExhaustedError(
                    f"{attempts} attempts failed; the last failure: {outcome.outcome}.", outcome
                )
            if not answer.started:
                self._retry(job, endpoint, budget, outcome)

    def _retry(self, job: Job, endpoint: Endpoint, budget: RetryBudget, error: InferenceError) -> None:
        """Begin another attempt, or raise AttemptsExhaustedError with why there may be none."""
        now_s = monotonic()
        prompt = job.prompt_tokens
        needed_s = (self.paces.expected_s(endpoint, prompt) or 0.0) + (
            self.paces.step_s(endpoint) * max(0, job.tokens - prompt)
        )
        reason = why_not(budget, self.config.retries, now_s, job.deadline_s, needed_s)
        if reason is not None:
            raise AttemptsExhaustedError(
                f"No other attempt: {reason}; the last failure: {error.outcome}.", error
            )
        budget.retried()
        self._observer.retried(job.wish)

    async def _hedged(
        self, endpoint: Endpoint, job: Job, answer: Answer, failed: set[str], attempts: int
    ) -> tuple[Endpoint, Outcome]:
        """An attempt beside which a second one may begin; whose outcome it is, and the outcome."""

        places = self._places

        def attempt(other: Endpoint, gate: Answer) -> Awaitable[Outcome]:
            return self._dispatcher.attempt(other, job, gate) if other is endpoint else hedge(other, gate)

        async def hedge(other: Endpoint, gate: Answer) -> Outcome:
            self._keep(job, attempts, 0.0, None, is_hedge=True)
            place = None if job.place is None else places.take(other, job.place.need)
            try:
                return await self._dispatcher.attempt(other, job, gate)
            finally:
                if place is not None:
                    places.leave(place)
                    self.queueing.queues.room(other.model, other.profile)

        def peers() -> Sequence[Endpoint]:
            return self._snapshot().endpoints.get(job.wish.model.name, ())

        def second(excluded: set[str]) -> Endpoint | None:
            return self.picker.decide(job, excluded | places.full).endpoint

        tokens, told = job.prompt_tokens, self._observer.attempt
        return await self._hedger.run(endpoint, tokens, answer, attempt, told, failed, peers, second)

    def _keep(
        self, job: Job, attempt: int, waited_s: float, last: InferenceError | None, *, is_hedge: bool = False
    ) -> None:
        """Keep the latest decision for who asks why."""
        after = None if last is None else last.outcome
        self.decisions.keep(
            Explained(
                time(),
                job.request.id,
                job.wish,
                attempt,
                is_hedge,
                waited_s,
                after,
                job.considered,
                job.held_s,
            )
        )

    def demanded(self) -> WorkerDemand:
        """What this process has to tell the controller of its load."""
        now_s = self._loop.time()
        return self.demand.report(self.ledger.loads(), self.deciding.in_flight(now_s), now_s)

    def _hedges(self, job: Job) -> bool:
        """Of an answer that is not streamed no first token tells that it has begun."""
        return job.request.stream and job.spare is None and self._knobs(job.wish.profile).hedge

    def _continue(self, job: Job, answer: Answer, error: InferenceError) -> bool:
        """Make the rest of a broken answer the job; whether the attempt had brought anything."""
        before = job.request
        rest = answer.continuation(before) if error.retry_safe and self.config.continue_streams else None
        if rest is None:
            raise error
        self._observer.continued(job.wish)
        job.request = rest
        job.lanes = frozenset({"tensorrt_llm"})
        once_more = rest.prompt_ids is before.prompt_ids
        return rest is not before and (once_more or rest.max_tokens < before.max_tokens)

    def _pass_on(self, job: Job, refusal: UnsupportedFeatureError, last: InferenceError | None) -> None:
        """What one endpoint cannot carry, another one of the same model may, now or when it has room again.

        Without another one, what failed before tells more than the refusal does.
        """
        if not self.picker.may_be_carried(job):
            raise (
                refusal
                if last is None
                else AttemptsExhaustedError(
                    f"The endpoint that is left cannot serve this request; the last failure: {last.outcome}.",
                    last,
                )
            )

    def _routed(self, job: Job, decision: Decision, started_ns: int, last: InferenceError | None) -> Endpoint:
        """The endpoint for the next attempt, by a decision that was begun at `started_ns`."""
        endpoint = decision.endpoint
        name = None if endpoint is None else endpoint.name
        job.trace.route_finished(
            started_ns,
            profile=job.wish.profile,
            wished_by=job.wish.reason,
            reason=decision.reason,
            endpoint=name,
            held_ms=round(job.held_s * 1000, 3) if job.held_s else None,
        )
        if endpoint is not None:
            return endpoint
        if last is not None:
            raise AttemptsExhaustedError(
                f"No other endpoint is ready; the last failure: {last.outcome}.", last
            )
        raise NoEndpointsError(
            f"The model {job.wish.model.name!r} has no endpoint that is ready ({decision.reason})."
        )
