"""Waiting: requests that wait for an endpoint, and their deployment groups. Owned by one event loop."""

from __future__ import annotations

import asyncio

from msgspec import Struct, field

from inference.request import Usage
from model_registry.knobs import Knobs
from router.admission import Drain, Verdict, service
from router.fair_queue import FairQueue
from router.job import Job
from router.pick import Decision
from router.tenant_turns import Ticket
from router.window import Held


class Waiter(Struct, eq=False):
    """One request that waits, and the future that ends its waiting."""

    job: Job
    failed: set[str]
    done: asyncio.Future[Decision]
    entered_s: float
    timer: asyncio.TimerHandle | None = None
    """Ends its waiting."""
    held_s: float | None = None
    """Since when it has been held, as `time.monotonic`: the loop's clock can stand still meanwhile."""
    decision: Decision | None = None
    refusal: Verdict | None = None


class Group(Struct, eq=False):
    """What waits for one model under one profile."""

    model: str
    profile: str
    knobs: Knobs
    queue: FairQueue[Waiter]
    drain: Drain = field(default_factory=Drain)
    waiters: dict[Waiter, Ticket[Waiter]] = field(default_factory=dict)
    deserted_s: float | None = None
    """Since when the model has no endpoint that is ready and takes traffic."""


def need_of(job: Job) -> Held:
    """What the request takes of a window."""
    return Held(1, job.tokens - job.output_tokens + job.request.max_tokens)


def uncached_of(job: Job) -> int:
    """Of its prompt, at the endpoint that has most of it, as far as that was looked at."""
    candidates = () if job.considered is None else job.considered.candidates
    cached = max((one.view.cached_tokens for one in candidates), default=0)
    return max(1, job.tokens - job.output_tokens - cached)


def settle(queue: FairQueue[Waiter], ticket: Ticket[Waiter], usage: Usage | None) -> None:
    """Charge what the request used; where a server does not tell that, the estimate stands."""
    if usage is None or usage.prompt_tokens is None or usage.completion_tokens is None:
        queue.settle(ticket, ticket.cost)
        return
    uncached = usage.prompt_tokens - (usage.cached_tokens or 0)
    queue.settle(ticket, service(uncached, usage.completion_tokens))
