"""Run: one workload through one router and its engines, until the last answer has ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import NamedTuple, Protocol

from router.replay.block_cache import BlockCache
from router.replay.engine import Engine, EngineCard, Job
from router.replay.workload import Request, TraceError, Workload


class Dispatch(NamedTuple):
    """A request goes to an engine, by its place in the fleet."""

    request: Request
    engine: int


class Router(Protocol):
    """What stands before the engines: gateways, or an oracle. All methods return what is dispatched now.

    A request that is neither dispatched nor held for later has been refused.
    """

    def arrived(self, request: Request, now_s: float) -> Sequence[Dispatch]:
        """A client's request."""

    def first_token(self, job: Job, engine: int, now_s: float) -> Sequence[Dispatch]:
        """The first token of an answer passes the gateway."""

    def ended(self, job: Job, engine: int, now_s: float) -> Sequence[Dispatch]:
        """The last one does."""

    def due(self, now_s: float) -> Sequence[Dispatch]:
        """The time that `due_s` named has come."""

    @property
    def due_s(self) -> float:
        """When it wants to be asked next; `inf` for never."""

    @property
    def waiting(self) -> int:
        """Requests that it holds."""


class Outcome(NamedTuple):
    """How one request fared; times in seconds from its arrival at the gateway."""

    request: Request
    ttft_s: float
    """`inf` for a request that was refused."""
    itl_s: float
    """Mean time of a token after the first."""
    hit_tokens: int
    first_s: float
    """On the clock of the replay."""
    last_s: float


class Fleet(NamedTuple):
    """Engines of one kind."""

    engines: int = 8
    card: EngineCard = EngineCard()
    block_tokens: int = 512
    shared_cache: bool = False
    """All caches in one, which every engine reads as its own: what no fleet has, and an oracle may."""

    def built(self) -> list[Engine]:
        """The engines, their caches empty."""
        blocks = self.card.kv_tokens // self.block_tokens
        shared = BlockCache(blocks * self.engines) if self.shared_cache else None
        return [
            Engine(f"e{n}", self.card, shared or BlockCache(blocks), self.block_tokens)
            for n in range(self.engines)
        ]


def run(
    workload: Workload,
    fleet: Fleet,
    router_for: Callable[[Sequence[Engine]], Router],
    progress: Callable[[float], None] = lambda _: None,
) -> list[Outcome]:
    """Every request's outcome, in the order of arrival. `progress` is told the share that has arrived.

    Raises TraceError for a prompt that fits no engine.
    """
    _check_fit(workload, fleet)
    engines = fleet.built()
    router = router_for(engines)
    jobs: dict[int, Job] = {}

    def submit(dispatches: Sequence[Dispatch], now_s: float) -> None:
        for request, place in dispatches:
            job = jobs[request.number] = Job(request, fleet.block_tokens)
            engines[place].submit(job, now_s)

    arrivals = iter(workload.requests)
    arriving = next(arrivals, None)
    arrived = 0
    while True:
        times = [engine.next_s for engine in engines]
        engine_s = min(times)
        arrival_s = inf if arriving is None else arriving.arrival_s
        now_s = min(engine_s, arrival_s, router.due_s)
        if now_s == inf or (arriving is None and engine_s == inf and not router.waiting):
            break
        if now_s == engine_s:
            place = times.index(engine_s)
            for job, ended in engines[place].advance():
                tell = router.ended if ended else router.first_token
                submit(tell(job, place, now_s), now_s)
            if fleet.shared_cache:
                for engine in engines:
                    engine.resume(now_s)
        elif arriving is not None and now_s == arrival_s:
            submit(router.arrived(arriving, now_s), now_s)
            arriving = next(arrivals, None)
            arrived += 1
            if arrived % 256 == 0:
                progress(arrived / len(workload.requests))
        else:
            submit(router.due(now_s), now_s)
    return [_outcome(request, jobs.get(request.number)) for request in workload.requests]


def _check_fit(workload: Workload, fleet: Fleet) -> None:
    room = fleet.card.kv_tokens // fleet.block_tokens
    for request in workload.requests:
        if -(-(request.prompt_tokens + request.output_tokens) // fleet.block_tokens) > room:
            raise TraceError(
                f"{workload.name}: a request of {request.prompt_tokens} + {request.output_tokens} tokens "
                "fits no engine: its cache is too small. Give engines a larger one, or leave the request out."
            )


def _outcome(request: Request, job: Job | None) -> Outcome:
    if job is None or job.first_s == inf:
        return Outcome(request, inf, inf, 0, inf, inf)
    ttft_s = job.first_s - request.arrival_s
    itl_s = (job.last_s - job.first_s) / max(1, request.output_tokens - 1)
    return Outcome(request, ttft_s, itl_s, job.hit_tokens, job.first_s, job.last_s)
