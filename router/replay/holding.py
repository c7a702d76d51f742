"""HoldingGateway: one gateway that holds what engines would only queue, in replay.

The fair queue, the windows, admission, shedding and the routing are the live ones; only what calls them is of
this module, in place of the asyncio of `router.queueing`. It sees what a gateway sees: its own dispatches,
first tokens and ends, never an answer's length before its end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from random import Random
from typing import NamedTuple

from inference.request import Usage
from model_registry.entities import Endpoint
from model_registry.knobs import Knobs
from model_registry.tenants import Priority
from router.admission import Drain, Standing, admit, service
from router.config import RouterConfig
from router.deciding import Deciding, Dispatched
from router.fair_queue import FairQueue
from router.ledger import Lease
from router.pick import Candidate, pick
from router.places import Place, Places
from router.policies import make
from router.replay.engine import Engine, EngineCard, Job
from router.replay.oracle import ask_of
from router.replay.run import Dispatch
from router.replay.workload import MOONCAKE_BLOCK_TOKENS, Request
from router.shedding import Shedding
from router.tenant_turns import Answer, Ticket
from router.under_way import UnderWay
from router.view import Ask
from router.window import Held

MODEL = "m"
PROFILE = "balanced"


class _Item(NamedTuple):
    """A request as the gateway knows it."""

    request: Request
    ask: Ask
    priority: Priority
    isolated_s: float
    """Its prompt alone on an idle engine, by the engine's card."""


class _Sent(NamedTuple):
    """What is settled when the request ends."""

    lease: Lease
    dispatched: Dispatched
    place: Place
    ticket: Ticket[_Item] | None
    cost_s: float


class HoldingGateway:
    """`router.replay.run.Router`. `slots` of every engine are what its windows are made of.

    `fair`: tenants take turns; else the queue is first come, first served.
    """

    def __init__(
        self,
        engines: Sequence[Engine],
        knobs: Knobs,
        slots: int,
        seed: int,
        *,
        fair: bool = True,
        on_dispatch: Callable[[Request, float], None] = lambda _request, _now_s: None,
    ) -> None:
        card = engines[0].card
        self.refused: dict[int, str] = {}
        """Why, by the request's number."""
        self.queue: FairQueue[_Item] = FairQueue(
            knobs.order, knobs.queue_limit, length_ratio=knobs.cohort_length_ratio
        )
        self._card = card
        self._knobs = knobs
        self._fair = fair
        self._random = Random(seed)
        self._endpoints = [_endpoint(engine, slots) for engine in engines]
        self._engine_of = {endpoint.name: place for place, endpoint in enumerate(self._endpoints)}
        self._deciding = Deciding(RouterConfig(cache_tokens=card.kv_tokens))
        self._policy = make(knobs.policy, knobs.policy_options)
        self._places = Places(lambda _: knobs)
        self._places.retain(self._endpoints)
        self._drain = Drain()
        self._under_way = UnderWay()
        self._work_s = [0.0] * len(engines)
        """Prefill that every engine was sent and has not done, by its card."""
        self._shedding = None if knobs.prefill_share is None else Shedding(knobs.prefill_share)
        self._on_dispatch = on_dispatch
        self._sent: dict[int, _Sent] = {}
        self._choice: Candidate | None = None
        self._refusal: str | None = None

    @property
    def waiting(self) -> int:
        return len(self.queue)

    @property
    def due_s(self) -> float:
        return inf

    def due(self, now_s: float) -> Sequence[Dispatch]:
        del now_s
        return ()

    def arrived(self, request: Request, now_s: float) -> Sequence[Dispatch]:
        isolated_s = _prefill_s(self._card, request.prompt_tokens, 0)
        due_s = now_s + max(self._knobs.ttft_target_s, 2 * isolated_s)
        ask = ask_of(request, due_s)._replace(attention=self._deciding.attention(MODEL))
        item = _Item(request, ask, "critical" if request.critical else "sheddable", isolated_s)
        if len(self.queue) == 0:
            if self._may_go(item, now_s) == "go":
                return self._go(item, None, now_s)
            self._drain.began(now_s)
        tenant, tokens = request.tenant if self._fair else "", ask.prompt_tokens + ask.output_tokens
        ahead = self.queue.ahead_tokens(tenant, 1.0, item.priority) + tokens
        wait_s = self._drain.seconds_for(ahead, now_s)
        ttft_s = min(self._ttft_s(item, one) for one in self._candidates(item, now_s))
        standing = Standing(True, False, self.queue.is_full, wait_s, ttft_s, isolated_s)
        verdict = admit(standing, self._knobs, item.priority)
        if verdict.action == "refuse":
            self.refused[request.number] = verdict.reason
            return ()
        self.queue.add(
            item,
            tenant=tenant,
            weight=1.0,
            priority=item.priority,
            cost=service(ask.prompt_tokens, ask.output_tokens),
            tokens=tokens,
            now_s=now_s,
            deadline_s=due_s,
            is_ahead=self._under_way.is_ahead(tenant, 1.0),
        )
        return self._release(now_s)

    def first_token(self, job: Job, engine: int, now_s: float) -> Sequence[Dispatch]:
        sent = self._sent[job.request.number]
        sent.lease.first_token(now_s)
        self._work_s[engine] -= sent.cost_s
        took_s = now_s - sent.dispatched.at_s
        self._deciding.learn_ttft(MODEL, self._endpoints[engine].name, sent.dispatched, now_s)
        idle_s = _prefill_s(self._card, job.request.prompt_tokens, sent.dispatched.cached)
        self._places.learn(sent.place, took_s, idle_s)
        return self._release(now_s)

    def ended(self, job: Job, engine: int, now_s: float) -> Sequence[Dispatch]:
        request = job.request
        sent = self._sent.pop(request.number)
        usage = Usage(request.prompt_tokens, request.output_tokens, job.hit_tokens)
        name = self._endpoints[engine].name
        self._deciding.answered(MODEL, name, sent.dispatched, usage, sent.lease.first_s, now_s)
        sent.lease.__exit__(None, None, None)
        self._places.leave(sent.place)
        self._under_way.end(request.tenant)
        if sent.ticket is not None:
            self.queue.settle(sent.ticket, service(request.prompt_tokens, request.output_tokens))
        return self._release(now_s)

    def _release(self, now_s: float) -> list[Dispatch]:
        dispatches: list[Dispatch] = []
        while len(self.queue) and len(self._places.full) < len(self._endpoints):
            ticket = self.queue.take(lambda item: self._may_go(item, now_s))
            if ticket is None:
                break
            if self._refusal is None:
                self._drain.left(ticket.tokens, now_s)
            else:
                self.queue.settle(ticket, 0.0)
            dispatches += self._go(ticket.load, ticket, now_s)
        return dispatches

    def _may_go(self, item: _Item, now_s: float) -> Answer:
        """As live: where the policy wants it, if there is room; or it is refused, as `_refusal` says."""
        self._choice, self._refusal = None, None
        full = self._places.full_for(_need(item))
        choices = self._candidates(item, now_s)
        decision = pick(
            PROFILE, self._knobs, self._policy, item.ask, choices, set(full), now_s, self._random.choice
        )
        if decision.endpoint is None:
            return "stop" if len(self._places.full) < len(self._endpoints) else "pass"
        self._choice = next(one for one in choices if one.endpoint is decision.endpoint)
        waited_s = now_s - item.request.arrival_s
        ttft_s = self._ttft_s(item, self._choice)
        standing = Standing(True, True, ttft_s=ttft_s, isolated_s=item.isolated_s, waited_s=waited_s)
        verdict = admit(standing, self._knobs, item.priority)
        if verdict.action == "refuse":
            self._refusal = verdict.reason
        elif self._shedding is not None and self._shedding.sheds(
            item.priority, self._cost_s(item, self._choice), len(self._endpoints), now_s
        ):
            self._refusal = "shed"
        return "go"

    def _go(self, item: _Item, ticket: Ticket[_Item] | None, now_s: float) -> list[Dispatch]:
        request = item.request
        if self._refusal is not None or self._choice is None:
            self.refused[request.number] = self._refusal or "no_endpoint"
            return []
        endpoint, cost_s = self._choice.endpoint, self._cost_s(item, self._choice)
        engine = self._engine_of[endpoint.name]
        self._work_s[engine] += cost_s
        if self._shedding is not None:
            self._shedding.dispatched(cost_s, len(self._endpoints), now_s)
        dispatched = self._deciding.dispatch(MODEL, endpoint, item.ask, self._policy, now_s)
        lease = self._deciding.ledger.lease(endpoint.name, dispatched.charge)
        lease.__enter__()
        place = self._places.take(endpoint, _need(item))
        self._under_way.begin(request.tenant, 1.0)
        self._sent[request.number] = _Sent(lease, dispatched, place, ticket, cost_s)
        self._on_dispatch(request, now_s)
        return [Dispatch(request, engine)]

    def _candidates(self, item: _Item, now_s: float) -> list[Candidate]:
        return self._deciding.candidates(MODEL, self._endpoints, None, item.ask, now_s)

    def _cost_s(self, item: _Item, choice: Candidate) -> float:
        """Seconds of prefill that the request is for the engine."""
        return _prefill_s(self._card, item.ask.prompt_tokens, choice.view.cached_tokens)

    def _ttft_s(self, item: _Item, choice: Candidate) -> float:
        """By the engine's card: a line through all lengths foretells too much for short prompts."""
        return self._work_s[self._engine_of[choice.endpoint.name]] + self._cost_s(item, choice)


def _need(item: _Item) -> Held:
    return Held(1, item.ask.prompt_tokens + item.ask.output_tokens)


def _prefill_s(card: EngineCard, tokens: int, cached: int) -> float:
    """A prompt alone on an idle engine that holds some of it."""
    return max(card.step_floor_s, card.prefill_s(tokens) - (card.prefill_s(cached) if cached > 0 else 0.0))


def _endpoint(engine: Engine, slots: int) -> Endpoint:
    return Endpoint.model_validate(
        {
            "name": f"d@{engine.name}:1",
            "deployment": "d",
            "model": MODEL,
            "profile": PROFILE,
            "lane": "tensorrt_llm",
            "target": MODEL,
            "http": f"http://{engine.name}:1",
            "max_concurrency": slots,
            "server_schema": {"tokens_per_block": MOONCAKE_BLOCK_TOKENS},
            "state": "ready",
        }
    )
