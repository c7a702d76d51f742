"""Gateways: N gateway processes before the engines, each with the state that a gateway could have.

Each decides by the live code (`router.deciding`, `router.pick`) on its own ledger, prefix index and
forecasts: its own dispatches at once, of its own streams the first and last token, and of the others what
they told, as old as that is. It never sees an engine.
"""

from __future__ import annotations

import heapq
from bisect import insort
from collections.abc import Sequence
from math import inf
from random import Random
from typing import NamedTuple

from inference.request import Usage
from model_registry.entities import Endpoint
from model_registry.knobs import Knobs
from router.config import RouterConfig
from router.deciding import Deciding, Dispatched
from router.ledger import Lease, Reported
from router.pick import pick
from router.policies import make
from router.replay.engine import Engine, Job
from router.replay.oracle import ask_of
from router.replay.run import Dispatch
from router.replay.statistics import Slo
from router.replay.workload import Request
from router.view import Ask

MODEL = "m"
GATHER_S = 0.01


class Exchange(NamedTuple):
    """How gateways tell each other of what they have in flight."""

    gateways: int = 1
    period_s: float = 1.0
    """Between two reports of one gateway."""
    age_s: float = 0.0
    """How long a report is on its way."""
    loss: float = 0.0
    """Share of reports that does not arrive, for each receiver by itself."""
    hints: bool = False
    """Reports also say which prompts went where."""
    at_once: bool = False
    """A report also leaves right after a dispatch, `GATHER_S` later."""


class Hold(NamedTuple):
    """What waits at the gateway in place of the engine's own queue."""

    ahead_tokens: float = inf
    """A request waits while the best endpoint for it has as much uncached prompt as this in flight."""
    deadline: bool = False
    """Of those that wait, the one whose first token is due first goes first; else the one that came first."""


class Gateways:
    """`router.replay.run.Router` of live parts."""

    def __init__(
        self,
        engines: Sequence[Engine],
        knobs: Knobs,
        seed: int,
        exchange: Exchange = Exchange(),  # noqa: B008  a constant
        hold: Hold = Hold(),  # noqa: B008  a constant
        slo: Slo = Slo(),  # noqa: B008  a constant
    ) -> None:
        card = engines[0].card
        endpoints = [_endpoint(engine) for engine in engines]
        config = RouterConfig(cache_tokens=card.kv_tokens)
        self._card = card
        self._slo = slo
        self._random = Random(seed)
        self._exchange = exchange
        self._gateways = [
            _Gateway(n, endpoints, knobs, config, hold, self._random) for n in range(exchange.gateways)
        ]
        self._of: dict[int, _Gateway] = {}
        self._under_way: list[tuple[float, int, int]] = []
        self._reports: list[_Report] = []
        self._due_s = [exchange.period_s * (n + 1) / exchange.gateways for n in range(exchange.gateways)]

    @property
    def waiting(self) -> int:
        """Requests that gateways hold."""
        return sum(len(gateway.held) for gateway in self._gateways)

    @property
    def due_s(self) -> float:
        """The next report leaves or arrives; never with one gateway."""
        if len(self._gateways) == 1:
            return inf
        return min(min(self._due_s), self._under_way[0][0] if self._under_way else inf)

    def arrived(self, request: Request, now_s: float) -> Sequence[Dispatch]:
        """At any gateway, with equal chances, as behind a plain load balancer."""
        gateway = self._of[request.number] = self._random.choice(self._gateways)
        due_s = request.arrival_s + self._slo.ttft_target_s(request, self._card)
        sent = gateway.hold(request, ask_of(request, due_s), now_s)
        if sent and self._exchange.at_once:
            self._due_s[gateway.number] = min(self._due_s[gateway.number], now_s + GATHER_S)
        return sent

    def first_token(self, job: Job, engine: int, now_s: float) -> Sequence[Dispatch]:
        """Seen by the gateway whose stream it is."""
        return self._of[job.request.number].first_token(job, engine, now_s)

    def ended(self, job: Job, engine: int, now_s: float) -> Sequence[Dispatch]:
        """The same, with the engine's word on what of the prompt it had."""
        return self._of[job.request.number].ended(job, engine, now_s)

    def due(self, now_s: float) -> Sequence[Dispatch]:
        """Reports that arrived, and those that leave."""
        sent: list[Dispatch] = []
        while self._under_way and self._under_way[0][0] <= now_s:
            _, number, receiver = heapq.heappop(self._under_way)
            sent += self._gateways[receiver].learn(self._reports[number], now_s)
        for place, due_s in enumerate(self._due_s):
            if due_s <= now_s:
                self._due_s[place] = now_s + self._exchange.period_s
                self._send(place, now_s)
        return sent

    def _send(self, sender: int, now_s: float) -> None:
        report = self._gateways[sender].report(self._exchange.hints, now_s)
        self._reports.append(report)
        for receiver in range(len(self._gateways)):
            if receiver != sender and self._random.random() >= self._exchange.loss:
                arrives_s = now_s + self._exchange.age_s
                heapq.heappush(self._under_way, (arrives_s, len(self._reports) - 1, receiver))


class _Report(NamedTuple):
    sender: int
    loads: dict[str, Reported]
    hints: Sequence[tuple[Endpoint, Ask]]


class _Held(NamedTuple):
    order: float
    number: int
    request: Request
    ask: Ask


class _Gateway:
    """One process."""

    def __init__(
        self,
        number: int,
        endpoints: Sequence[Endpoint],
        knobs: Knobs,
        config: RouterConfig,
        hold: Hold,
        random: Random,
    ) -> None:
        self.held: list[_Held] = []
        self.number = number
        self._endpoints = endpoints
        self._places = {endpoint.name: place for place, endpoint in enumerate(endpoints)}
        self._knobs = knobs
        self._hold = hold
        self._random = random
        self._deciding = Deciding(config)
        self._policy = make(knobs.policy, knobs.policy_options)
        self._leases: dict[int, tuple[Lease, Dispatched]] = {}
        self._to_tell: list[tuple[Endpoint, Ask]] = []

    def hold(self, request: Request, ask: Ask, now_s: float) -> list[Dispatch]:
        ask = ask._replace(attention=self._deciding.attention(MODEL))
        order = ask.deadline_s if self._hold.deadline and ask.deadline_s is not None else request.arrival_s
        insort(self.held, _Held(order, request.number, request, ask))
        return self._release(now_s)

    def first_token(self, job: Job, place: int, now_s: float) -> list[Dispatch]:
        lease, sent = self._leases[job.request.number]
        lease.first_token(now_s)
        self._deciding.learn_ttft(MODEL, self._endpoints[place].name, sent, now_s)
        return self._release(now_s)

    def ended(self, job: Job, place: int, now_s: float) -> list[Dispatch]:
        lease, sent = self._leases.pop(job.request.number)
        usage = Usage(job.request.prompt_tokens, job.request.output_tokens, job.hit_tokens)
        self._deciding.answered(MODEL, self._endpoints[place].name, sent, usage, lease.first_s, now_s)
        lease.__exit__(None, None, None)
        return self._release(now_s)

    def report(self, hints: bool, now_s: float) -> _Report:
        forecasts, ledger = self._deciding.forecasts, self._deciding.ledger
        steps_s = {
            one.name: forecasts.of(one.name).step_s(ledger.of(one.name).decoding) for one in self._endpoints
        }
        told, self._to_tell = self._to_tell, []
        return _Report(self.number, ledger.report(steps_s, now_s), told if hints else ())

    def learn(self, report: _Report, now_s: float) -> list[Dispatch]:
        self._deciding.ledger.learn(str(report.sender), report.loads)
        for endpoint, ask in report.hints:
            self._deciding.heard(MODEL, endpoint, ask, now_s)
        return self._release(now_s)

    def _release(self, now_s: float) -> list[Dispatch]:
        """Send what may go, in order. A request waits for the endpoint that is best for it, not for any."""
        sent: list[Dispatch] = []
        kept: list[_Held] = []
        for held in self.held:
            choices = self._deciding.candidates(MODEL, self._endpoints, None, held.ask, now_s)
            draw = self._random.choice
            decision = pick("balanced", self._knobs, self._policy, held.ask, choices, set(), now_s, draw)
            endpoint = decision.endpoint
            assert endpoint is not None, decision.reason
            if self._deciding.ledger.of(endpoint.name).prefill_tokens < self._hold.ahead_tokens:
                sent.append(self._send(held, endpoint, now_s))
            else:
                kept.append(held)
        self.held = kept
        return sent

    def _send(self, held: _Held, endpoint: Endpoint, now_s: float) -> Dispatch:
        ask = held.ask
        dispatched = self._deciding.dispatch(MODEL, endpoint, ask, self._policy, now_s)
        lease = self._deciding.ledger.lease(endpoint.name, dispatched.charge)
        lease.__enter__()
        self._leases[held.number] = lease, dispatched
        self._to_tell.append((endpoint, ask))
        return Dispatch(held.request, self._places[endpoint.name])


def _endpoint(engine: Engine) -> Endpoint:
    return Endpoint.model_validate(
        {
            "name": f"d@{engine.name}:1",
            "deployment": "d",
            "model": MODEL,
            "profile": "balanced",
            "lane": "tensorrt_llm",
            "target": MODEL,
            "http": f"http://{engine.name}:1",
            "max_concurrency": engine.card.slots,
            "server_schema": {"tokens_per_block": engine.block_tokens},
            "state": "ready",
        }
    )
