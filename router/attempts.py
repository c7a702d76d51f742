"""The attempt loop: one request, as many endpoints as it takes, one end.

A failed attempt's lease is back before the next pick. Before the first token a safe failure moves on; after
it, a token-id stream goes on at another endpoint with what was generated so far, and anything else ends
broken.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence, Set
from functools import partial
from time import monotonic, time
from typing import Protocol

from msgspec import Struct, field

from inference.adapters import Adapters
from inference.client import ModelClients, takes_weights
from inference.embeddings import most_inputs
from inference.errors import (
    AdapterMissingError,
    InferenceError,
    RequestRefusedError,
    ServerFailedError,
    ServerUnreachableError,
    UnsupportedFeatureError,
)
from inference.request import InferenceRequest, Lora, Usage
from inference.schema import Schema
from inference.sink import Call, FinishReason, Sink
from model_registry.demand.demand import WorkerDemand
from model_registry.entities import Endpoint
from model_registry.knobs import Knobs, knobs_of
from model_registry.snapshot import Snapshot
from router.answer import Answer, Start
from router.answer import Outcome as Outcome
from router.capacity import Capacity
from router.cohorts import Lead
from router.config import RouterConfig
from router.deciding import Deciding, Dispatched, Expected
from router.demand import Demanded, GroupCounts, Waiting
from router.errors import AttemptsExhaustedError, NoEndpointsError, NoRoomError
from router.explain import Considered, Decisions, Explained
from router.fair_queue import Priority
from router.hedger import Hedger
from router.holding import Outlook
from router.ledger import EndpointLoad
from router.paces import Paces
from router.pick import Candidate, Decision, pick
from router.placement import Placement, Turn
from router.places import Place
from router.profiles import Wish
from router.queueing import Queueing, QueueObserver
from router.retry_budget import RetryBudget, why_not
from router.sides import served_by
from router.timing import trace_attributes
from router.view import Ask, EndpointView, Policy
from telemetry.request_trace import AttemptTrace, RequestTrace
from telemetry.shared_trace import SharedTrace
from tenancy.policy import Selection

_NONE: frozenset[str] = frozenset()


class Finished(Struct, frozen=True, gc=False):
    """A clean end. `reason` is None where the server does not tell."""

    reason: FinishReason | None
    usage: Usage
    endpoint: Endpoint
    attempts: int
    continued: int
    """Streams that were broken and went on elsewhere."""


class AttemptObserver(QueueObserver, Protocol):
    """Learns how attempts went, too."""

    def attempt(self, endpoint: Endpoint, outcome: str) -> None: ...

    def retried(self, wish: Wish) -> None: ...

    def continued(self, wish: Wish) -> None: ...


class Job(Struct):
    """One request on its way: what is asked, of which model, and what is known of its size."""

    request: InferenceRequest
    wish: Wish
    tokens: int
    """Prompt tokens and expected output."""
    trace: RequestTrace | SharedTrace
    lanes: frozenset[str] | None = None
    """Lanes that can serve it; None: any."""
    spare: Callable[[Endpoint], bool] | None = None
    """Which endpoints have room to spare, for a request that may use nothing else; None: any may serve it."""
    deadline_s: float | None = None
    """When the whole answer is due, as `time.monotonic`; None: whenever."""
    tenant: str = ""
    """Whose turn it takes in the queue."""
    weight: float = 1.0
    """Of the tenant beside the others."""
    priority: Priority = "standard"
    output_tokens: int = 0
    """Of `tokens`, those of the expected output."""
    place: Place | None = None
    """What it takes of an endpoint's window."""
    charge: Callable[[Usage | None], None] | None = None
    """Charges its tenant what it really used, where it waited for its turn."""
    dispatched: bool = False
    """It has been sent to an endpoint: from now on it goes before new requests."""
    session: str | None = None
    """What its client says belongs together."""
    isolation_class: str = ""
    """Whose prompts in KV caches it may count on; "" is everybody's."""
    lead: Lead | None = None
    """Its being the first of requests that begin alike, until its prompt is computed."""
    behind: Lead | None = None
    """Whom it waits for, to reuse what that one computes."""
    held_until_s: float | None = None
    """How long it waits so at most, since it first had to."""
    asks: tuple[InferenceRequest, Ask] | None = None
    """What the policies are told of it, and of which request that was made."""
    knobs: Knobs | None = None
    policy: Policy | None = None
    """What its profile sets, and what rated its endpoints, in the latest decision."""
    selection: Selection | None = None
    """Endpoints that its tenant may be served by; None: any."""
    blamed: set[str] = field(default_factory=set)
    """Endpoints whose breaker has heard of a failure of this request."""
    refused_by: frozenset[str] = _NONE
    """Endpoints that cannot carry it, whatever their load."""
    considered: Considered | None = None
    """The latest decision."""
    arrived_s: float = 0.0
    """When it came to the router, by the loop's clock."""
    counts: GroupCounts | None = None
    """Of its model and profile; None: it counts nowhere."""
    waiting: Waiting | None = None
    """As it is told to the controller while it waits."""
    held_s: float = 0.0
    """How long it has been held, no endpoint being up that could serve it."""
    on_held: Callable[[], None] | None = None
    """Called when one is, after it was held."""
    has_stand_in: bool = False
    """Another model may answer at once: it is not held for its own to come up."""

    @property
    def prompt_tokens(self) -> int:
        """Of the prompt; where only its server can count them, of all that is known."""
        ids = self.request.prompt_ids
        return self.tokens if ids is None else len(ids)


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
        self._hedger = Hedger(config.hedging, self.paces, self.ledger, clients)
        self.decisions = Decisions(config.explained_decisions)
        self.placement = Placement()
        self.demand = Demanded()
        self._adapters = adapters
        self._knobs = knobs
        self._clients = clients
        self._snapshot = snapshot
        self._observer = observer
        self._loop = asyncio.get_running_loop()
        self._budgets: dict[str, RetryBudget] = {}
        self.queueing = Queueing(
            config, snapshot, self._decide, self._is_served, self.expected, observer, knobs, capacity
        )
        self.waiting = self.queueing.waiting

    def registry_changed(self) -> None:
        """A new snapshot is there: who waits for an endpoint looks again."""
        endpoints = [endpoint for group in self._snapshot().endpoints.values() for endpoint in group]
        self.deciding.retain(endpoints)
        self.placement.retain(endpoints)
        self.paces.retain(endpoints)
        self.demand.retain(self._snapshot())
        models = self._snapshot().models
        self._hedger.retain([*models])
        for model in self._budgets.keys() - models.keys():
            del self._budgets[model]
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
        limits = [most_inputs(Schema.from_dict(dict(one.server_schema))) for one in endpoints]
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
        budget = self._budget(model)
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
                outcome = await self._with_adapter(endpoint, job, answer, job.request.lora)
            elif answer.started or not hedges:
                outcome = await self._attempt(endpoint, job, answer)
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

    def _budget(self, model: str) -> RetryBudget:
        """The model's, with one more request."""
        budget = self._budgets.get(model)
        if budget is None:
            budget = self._budgets[model] = RetryBudget()
        budget.began(monotonic(), self.config.retries)
        return budget

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

        places = self.queueing.places

        def attempt(other: Endpoint, gate: Answer) -> Awaitable[Outcome]:
            return self._attempt(other, job, gate) if other is endpoint else hedge(other, gate)

        async def hedge(other: Endpoint, gate: Answer) -> Outcome:
            self._keep(job, attempts, 0.0, None, is_hedge=True)
            place = None if job.place is None else places.take(other, job.place.need)
            try:
                return await self._attempt(other, job, gate)
            finally:
                if place is not None:
                    places.leave(place)
                    self.queueing.room(other.model, other.profile)

        def peers() -> Sequence[Endpoint]:
            return self._snapshot().endpoints.get(job.wish.model.name, ())

        def second(excluded: set[str]) -> Endpoint | None:
            return self._decide(job, excluded | places.full).endpoint

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
        if not any(self._may_carry(job, endpoint) for endpoint in self._open_to(job, job.refused_by)):
            raise (
                refusal
                if last is None
                else AttemptsExhaustedError(
                    f"The endpoint that is left cannot serve this request; the last failure: {last.outcome}.",
                    last,
                )
            )

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

    def _is_served(self, job: Job) -> bool:
        """Whether an endpoint is up that may serve the job, whatever its load."""
        return any(
            one.state == "ready" and one.weight > 0 and self._may_carry(job, one)
            for one in self._open_to(job, job.refused_by)
        )

    async def _with_adapter(self, endpoint: Endpoint, job: Job, answer: Answer, lora: Lora) -> Outcome:
        """An attempt at an engine that may have to be sent the adapter first.

        An engine that has evicted it says so before a first token. It is asked again at once, with the
        weights if nobody else is sending them; should they be gone again by then, with them in any case.
        """
        if not takes_weights(endpoint):
            return await self._attempt(endpoint, job, answer)
        for insist in (False, False, True):
            with await self.placement.turn(endpoint, lora.task_id, insist=insist) as turn:
                outcome = await self._in_turn(turn, endpoint, job, answer)
            job.request.lora = lora
            if isinstance(outcome, ServerUnreachableError):
                self.placement.forget(endpoint.name)
            if not isinstance(outcome, AdapterMissingError):
                break
            turn.missed()
            if not insist:
                self._observer.attempt(endpoint, outcome.outcome)
        return outcome

    async def _in_turn(self, turn: Turn, endpoint: Endpoint, job: Job, answer: Answer) -> Outcome:
        if not turn.sends or job.wish.adapter is None:
            return await self._attempt(endpoint, job, answer)
        lora = job.request.lora = await self._adapters.load(job.wish.adapter)

        def start(request: InferenceRequest, sink: Sink) -> Call:
            watching = turn.watching(sink, lora.task_id)
            return self._clients.sending_weights(endpoint).start(request, watching)

        return await self._attempt(endpoint, job, answer, start)

    async def _attempt(
        self, endpoint: Endpoint, job: Job, answer: Answer, start: Start | None = None
    ) -> Outcome:
        now_s, goes_on = self._loop.time(), answer.started
        done: asyncio.Future[Outcome] = self._loop.create_future()
        trace = job.trace.attempt(endpoint.name, endpoint.lane, endpoint.target)
        request = job.request
        request.traceparent = trace.traceparent
        request.tracestate = job.trace.tracestate
        model = job.wish.model.name
        assert job.asks is not None
        assert job.policy is not None
        sent = self.deciding.dispatch(model, endpoint, job.asks[1], job.policy, now_s, _view(job, endpoint))
        lease_of = self.ledger.lease if job.spare is None else self.ledger.spare_lease
        lease = lease_of(endpoint.name, sent.charge)
        with lease as load:
            self.deciding.watch(endpoint.name, request, sent, lease, trace, self._loop.time, goes_on=goes_on)
            if trace.on_first_token is not None and job.place is not None:
                idle_s, then = sent.idle_ttft_s, trace.on_first_token
                trace.on_first_token = partial(self.queueing.first_token, then, job, job.place, now_s, idle_s)
            if load.breaker.opened_at_s is not None:
                load.probe(trace, now_s)
            if request.stream and not goes_on:
                self.paces.begins(endpoint, trace, sent.charge.uncached)
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
                self.paces.ends(endpoint, trace, None, monotonic())
                ending = "cancelled" if isinstance(error, asyncio.CancelledError) else "failed"
                trace.finished(ending)
                self._observer.attempt(endpoint, ending)
                raise
            if _may_be_the_guides_fault(outcome, endpoint, request) and not answer.started:
                outcome = _impossible_guide(request)
            self._judge(load, trace, outcome, endpoint, job)
            if isinstance(outcome, ServerUnreachableError):
                self.deciding.unreachable(model, endpoint.name)
            if isinstance(outcome, InferenceError):
                trace.finished(outcome.outcome)
                if call is not None:
                    call.cancel()  # an error within a stream leaves the call open; it must push no more
            else:
                trace.finished(None, trace_attributes(outcome[1].engine))
                first_s = lease.first_s if request.stream and not goes_on else None
                self._learn(job, endpoint, sent, outcome[1], first_s, goes_on=goes_on)
            return outcome

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
        timing = self.deciding.answered(
            job.wish.model.name, endpoint.name, sent, usage, first_s, self._loop.time()
        )
        if timing.itl_s:
            self.paces.answered(endpoint, timing.itl_s)
        seen = goes_on or first_s is not None
        self.queueing.answered(job, endpoint.name, usage, timing, sent, seen=seen)

    def _judge(
        self, load: EndpointLoad, trace: AttemptTrace, outcome: Outcome, endpoint: Endpoint, job: Job
    ) -> None:
        """What the attempt says of its endpoint; one request counts against an endpoint once at most."""
        now_s, failed = monotonic(), None
        if not isinstance(outcome, InferenceError):
            load.proven(trace, self.config)
            load.answers += 1
            failed = False
        elif outcome.endpoint_fault and endpoint.name not in job.blamed:
            job.blamed.add(endpoint.name)
            load.failed(self._loop.time(), self.config)
            load.failures += 1
            failed = True
        else:
            load.let_go(trace)
        self.paces.ends(endpoint, trace, failed, now_s)

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

    def _decide(self, job: Job, failed: set[str]) -> Decision:
        model, profile, now_s = job.wish.model.name, job.wish.profile, self._loop.time()
        excluded = failed | job.refused_by if job.refused_by else failed
        endpoints = self._open_to(job, excluded)
        ask = self._ask(job, endpoints)
        choices = self._choices(job, ask, endpoints, now_s)
        left = self.paces.left(endpoints, monotonic())
        knobs = job.knobs = self._knobs(profile)
        policy = job.policy = self.deciding.policy(model, profile, knobs)
        decision = pick(profile, knobs, policy, ask, choices, excluded | left if left else excluded, now_s)
        if decision.endpoint is None and left and not self._well_but_full(choices, excluded, left):
            # better a bad endpoint than none
            decision = pick(profile, knobs, policy, ask, choices, excluded, now_s)
        job.considered = Considered(decision, choices, frozenset(excluded) if excluded else _NONE, left)
        return decision

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

    def expected(self, job: Job, endpoint: str | None = None) -> Expected:
        """When the first token would come if the request went to `endpoint` now; None: to the soonest."""
        endpoints = self._open_to(job, job.refused_by)
        ask = self._ask(job, endpoints)
        choices = self._choices(job, ask, endpoints, self._loop.time())
        return self.deciding.expected(ask, [c for c in choices if endpoint in (None, c.endpoint.name)])

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
                return not self.placement.holds(endpoint, task_id)

        model = job.wish.model.name
        return self.deciding.candidates(model, endpoints, job.lanes, ask, now_s, lacks_adapter)

    def _well_but_full(self, choices: Sequence[Candidate], excluded: set[str], left: Set[str]) -> bool:
        """Whether an endpoint that is not left alone is only waited for."""
        full = self.queueing.places.full
        return any(
            one.endpoint.state == "ready"
            and one.breaker_admits
            and one.endpoint.name in full & excluded - left
            for one in choices
        )

    def _ask(self, job: Job, endpoints: Sequence[Endpoint]) -> Ask:
        """Made once for each request that the job sends: hashing a long prompt takes a while."""
        if job.asks is None or job.asks[0] is not job.request:
            ask = self.deciding.ask(job.request, job.tokens, job.isolation_class, endpoints, job.session)
            job.asks = job.request, ask
        return job.asks[1]


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
