"""Oracle: a router that knows every engine's true state at once, which no gateway does.

With a fleet whose engines share one cache it is the pooled oracle that policies are measured against: the
hits of one cache of all sizes added, reached from everywhere, and a perfectly fresh view of load.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from random import Random

from router.replay.engine import Engine, Job
from router.replay.run import Dispatch
from router.replay.workload import Request
from router.view import Ask, EndpointView, Policy

EXPECTED_OUTPUT_TOKENS = 256
"""What is assumed of an answer that has not been seen; never the true length."""


def ask_of(request: Request, deadline_s: float | None = None) -> Ask:
    """What a gateway knows of a request when it comes."""
    return Ask(
        request.prompt_tokens,
        EXPECTED_OUTPUT_TOKENS,
        request.blocks,
        request.tenant,
        deadline_s=deadline_s,
    )


def cheapest(costs: Sequence[float], random: Random) -> int:
    """The place of the lowest cost; a draw among equals."""
    least = min(costs)
    places = [place for place, cost in enumerate(costs) if cost == least]
    return places[0] if len(places) == 1 else random.choice(places)


class Oracle:
    """Routes by `policy` on the truth."""

    def __init__(self, engines: Sequence[Engine], policy: Policy, block_tokens: int, seed: int) -> None:
        self._engines = engines
        self._policy = policy
        self._block_tokens = block_tokens
        self._random = Random(seed)
        self._requests = [0] * len(engines)
        self._prefill = [0] * len(engines)
        self._charged: dict[int, int] = {}

    due_s = inf
    waiting = 0

    def arrived(self, request: Request, now_s: float) -> Sequence[Dispatch]:
        """To the cheapest, at once."""
        ask = ask_of(request)
        views = [self._view(place, request) for place in range(len(self._engines))]
        place = cheapest(self._policy.costs(ask, views, now_s), self._random)
        self._policy.chosen(ask, views[place], now_s)
        uncached = views[place].uncached_tokens(ask)
        self._charged[request.number] = uncached
        self._requests[place] += 1
        self._prefill[place] += uncached
        return [Dispatch(request, place)]

    def first_token(self, job: Job, engine: int, now_s: float) -> Sequence[Dispatch]:  # noqa: ARG002
        """Its prompt is no load any more."""
        self._prefill[engine] -= self._charged.pop(job.request.number)
        return ()

    def ended(self, job: Job, engine: int, now_s: float) -> Sequence[Dispatch]:  # noqa: ARG002
        """Nor is it."""
        self._requests[engine] -= 1
        return ()

    def due(self, now_s: float) -> Sequence[Dispatch]:  # noqa: ARG002
        """Never asked for."""
        return ()

    def _view(self, place: int, request: Request) -> EndpointView:
        engine = self._engines[place]
        return EndpointView(
            engine.name,
            engine.card.slots,
            self._requests[place],
            self._prefill[place],
            engine.resident_tokens,
            engine.cache.held(request.blocks) * self._block_tokens,
        )
