"""Flood: one tenant of eight sends four times its share. What the others get, and what fairness costs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import inf
from random import Random
from typing import NamedTuple

from model_registry.knobs import Knobs
from router.admission import service
from router.replay.engine import Engine
from router.replay.holding import HoldingGateway
from router.replay.run import Dispatch, Fleet, Outcome, run
from router.replay.statistics import quantile
from router.replay.workload import Request, Workload, bundled

SETTINGS = ((24, 30), (48, 60), (96, 60))
"""Requests at once per engine, and requests per second of all tenants together."""
TENANTS = 8
FLOOD_TIMES = 4
ENGINES = 4
_KNOBS = Knobs(queue_limit=10**6, window_tolerance=1000)


class FloodRow(NamedTuple):
    """One run, beside the same first come, first served, and the victims by themselves."""

    window: int
    rate: float
    seed: int
    gap: float
    """Largest difference of what two tenants got while both waited, in weighted tokens."""
    gap_fcfs: float
    victims_p99_ttft_s: float
    isolated_p99_ttft_s: float
    throughput: float
    """Weighted tokens per second until the last answer has ended, beside first come, first served."""

    @property
    def slowdown(self) -> float:
        """Of the victims, beside being alone."""
        return self.victims_p99_ttft_s / self.isolated_p99_ttft_s


class _Service:
    """What every tenant was given, counted when a request goes to an engine, by its true cost."""

    def __init__(self) -> None:
        names = [str(tenant) for tenant in range(TENANTS)]
        self.largest_gap = 0.0
        self._got = dict.fromkeys(names, 0.0)
        self._waiting = dict.fromkeys(names, 0)
        self._since = dict.fromkeys(combinations(names, 2), 0.0)

    def came(self, request: Request) -> None:
        tenant = request.tenant
        self._waiting[tenant] += 1
        if self._waiting[tenant] == 1:
            for pair in self._since:
                if tenant in pair:
                    self._since[pair] = self._got[pair[0]] - self._got[pair[1]]

    def went(self, request: Request, now_s: float) -> None:
        del now_s
        self._waiting[request.tenant] -= 1
        self._got[request.tenant] += service(request.prompt_tokens, request.output_tokens)
        for (one, other), since in self._since.items():
            if self._waiting[one] and self._waiting[other]:
                gap = abs(self._got[one] - self._got[other] - since)
                self.largest_gap = max(self.largest_gap, gap)


class _Watched(HoldingGateway):
    """Tells when a request comes."""

    def __init__(self, engines: Sequence[Engine], slots: int, seed: int, fair: bool, told: _Service) -> None:
        super().__init__(engines, _KNOBS, slots, seed, fair=fair, on_dispatch=told.went)
        self._told = told

    def arrived(self, request: Request, now_s: float) -> Sequence[Dispatch]:
        self._told.came(request)
        return super().arrived(request, now_s)


def flood(window: int, rate: float, seed: int, seconds: float = inf) -> FloodRow:
    """The first `seconds` of Azure's conversations, `rate` requests per second dealt out to tenants."""
    timed = bundled("azure").at(rate, seed).first(seconds)
    random = Random(f"tenants {seed}")
    shares = [FLOOD_TIMES] + [1] * (TENANTS - 1)
    names = random.choices([str(tenant) for tenant in range(TENANTS)], shares, k=len(timed.requests))
    requests = [one._replace(tenant=name) for one, name in zip(timed.requests, names, strict=True)]
    whole = timed._replace(requests=requests)
    victims = [one for one in requests if one.tenant != "0"]
    alone = timed._replace(requests=[one._replace(number=n) for n, one in enumerate(victims)])
    fair, gap = _run(whole, window, seed, fair=True)
    fcfs, gap_fcfs = _run(whole, window, seed, fair=False)
    isolated, _ = _run(alone, window, seed, fair=True)
    return FloodRow(
        window, rate, seed, gap, gap_fcfs, _p99_s(fair), _p99_s(isolated), _served(fair) / _served(fcfs)
    )


def _run(workload: Workload, window: int, seed: int, *, fair: bool) -> tuple[list[Outcome], float]:
    told = _Service()
    fleet = Fleet(engines=ENGINES)
    outcomes = run(workload, fleet, lambda engines: _Watched(engines, window, seed, fair, told))
    return outcomes, told.largest_gap


def _p99_s(outcomes: Sequence[Outcome]) -> float:
    """Of the victims."""
    return quantile(sorted(one.ttft_s for one in outcomes if one.request.tenant != "0"), 0.99)


def _served(outcomes: Sequence[Outcome]) -> float:
    """Weighted tokens per second, over the whole run: both orders serve the same requests in the end."""
    tokens = sum(service(one.request.prompt_tokens, one.request.output_tokens) for one in outcomes)
    return tokens / max(one.last_s for one in outcomes)
