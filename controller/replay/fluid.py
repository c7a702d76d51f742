"""Fluid: a fleet in steps of one second, in which work flows through replicas first come, first served.

Each ready replica does one replica-second of work per second; what is more waits. Replicas that start take
their time and are paid for from the decision on. How engines batch is in what a request's work is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from controller.replay.traffic import Floats, Traffic


class Engines(NamedTuple):
    """What replicas are like."""

    cold_start_s: int
    wait_s: int = 2
    """A request that waits longer misses its target."""
    service_s: float = 30.0
    """How long an answer takes. A replica's requests under way are so many seconds of arrivals."""
    request_s: float = 1.0
    """Mean work of a request, in replica-seconds."""
    least: int = 1
    most: int = 10_000


class State(NamedTuple):
    """What a scaler may look at."""

    second: int
    ready: int
    starting: int
    concurrency: Sequence[float]
    """Requests under way and waiting, in what replicas hold of them: sums over the seconds before each one,
    and at the end over all until now."""
    backlog: float
    """Work that waits."""
    arrived: float
    """Work since the last look."""
    answered: float
    """Requests since the last look."""
    late: float
    """Those of them that had waited for too long."""

    @property
    def up(self) -> int:
        """Replicas that are ready or on their way."""
        return self.ready + self.starting

    def mean_concurrency(self, window_s: int) -> float:
        """Of the last seconds."""
        window_s = min(window_s, self.second + 1)
        return (self.concurrency[-1] - self.concurrency[-1 - window_s]) / window_s


class Scaler(Protocol):
    """Decides how many replicas there should be."""

    @property
    def period_s(self) -> int:
        """Seconds between two looks."""

    def look(self, state: State) -> int:
        """The number from now on."""


class Run(NamedTuple):
    """One fleet's day."""

    replica_s: float
    """Replica-seconds, those of starting ones included."""
    attainment: float
    """Part of the requests that waited no longer than they may."""
    ups: int
    """Decisions for more."""
    starts: int
    """Replicas that were started."""
    ready: Floats
    """By second."""
    up: Floats
    """By second, those on their way included."""


def run(traffic: Traffic, engines: Engines, scaler: Scaler, begin: int) -> Run:
    """`begin`: replicas that are ready at the start."""
    seconds, work, requests = traffic.seconds, traffic.work.tolist(), traffic.requests.tolist()
    concurrency = [0.0]
    done: list[float] = []
    ready_by: list[int] = []
    up_by: list[int] = []
    starting: deque[int] = deque()
    ready, backlog, ups, starts = begin, 0.0, 0, 0
    wait_s, period_s = engines.wait_s, scaler.period_s
    came = did = arrived = answered = late = 0.0
    for second in range(seconds):
        while starting and starting[0] <= second:
            starting.popleft()
            ready += 1
        present = backlog + work[second]
        doing = min(present, float(ready))
        backlog = present - doing
        did += doing
        arrived += work[second]
        done.append(did)
        concurrency.append(concurrency[-1] + doing + backlog / engines.service_s)
        ready_by.append(ready)
        up_by.append(ready + len(starting))
        if second >= wait_s and work[second - wait_s]:
            of = work[second - wait_s]
            came += of
            answered += requests[second - wait_s]
            late += requests[second - wait_s] * min(1.0, max(0.0, came - did) / of)
        if second % period_s == 0 and second:
            up = ready + len(starting)
            state = State(second, ready, len(starting), concurrency, backlog, arrived, answered, late)
            wanted = min(max(scaler.look(state), engines.least), engines.most)
            arrived = answered = late = 0.0
            if wanted > up:
                ups, starts = ups + 1, starts + wanted - up
                starting.extend([second + 1 + engines.cold_start_s] * (wanted - up))
            for _ in range(up - wanted):
                if starting:
                    starting.pop()
                else:
                    ready -= 1
    in_time = attainment(traffic, np.diff(done, prepend=0.0), wait_s)
    return Run(float(sum(up_by)), in_time, ups, starts, np.array(ready_by, float), np.array(up_by, float))


def attainment(traffic: Traffic, done: Floats, wait_s: int) -> float:
    """Part of the requests whose work was done within `wait_s`; `done`: work done by second."""
    until = np.minimum(np.arange(traffic.seconds) + wait_s, traffic.seconds - 1)
    before = np.cumsum(traffic.work) - traffic.work
    parts = np.clip(np.cumsum(done)[until] - before + 1e-9, 0, traffic.work)
    in_time = np.divide(parts, traffic.work, out=np.ones_like(parts), where=traffic.work > 0)
    return float((in_time * traffic.requests).sum() / traffic.requests.sum())


def served(traffic: Traffic, ready: Floats) -> Floats:
    """Work done by second, where the number of ready replicas is given."""
    excess = np.cumsum(traffic.work - ready)
    backlog = excess - np.minimum.accumulate(np.minimum(excess, 0))
    return traffic.work + np.concatenate(([0.0], backlog[:-1])) - backlog
