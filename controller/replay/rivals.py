"""Rivals: other ways to size a fleet, by their published rules, and one that knows the future."""

from __future__ import annotations

from collections import deque
from math import ceil, floor

import numpy as np

from controller.replay.fluid import Engines, Run, State, attainment, served
from controller.replay.traffic import Floats, Traffic

TARGET = 0.7
"""Of a replica's concurrency: Knative's `container-concurrency-target-percentage`."""
STATIC_SHARE = 0.99
"""Of requests that are in time in the smallest fixed fleet."""
ORACLE_WINDOW_S = 60
ORACLE_FILL = 0.85
"""What the clairvoyant fleet uses of its replicas in each minute that it sees coming."""


class Kpa:
    """Knative's autoscaler: windows of 60 s and 6 s, panic at twice what is ready.

    After `pkg/autoscaler/scaling/autoscaler.go` of knative/serving, its defaults.
    """

    period_s = 2

    def __init__(self) -> None:
        self._panic_since: int | None = None
        self._panic_most = 0

    def look(self, state: State) -> int:
        """The stable window's, or while in panic the most that was asked for since."""
        now, ready = state.second, max(1, state.ready)
        stable = self._desired(state.mean_concurrency(60), ready)
        panic = self._desired(state.mean_concurrency(6), ready)
        if panic >= 2 * ready:
            if self._panic_since is None:
                self._panic_most = 0
            self._panic_since = now
        elif self._panic_since is not None and now - self._panic_since >= 60:
            self._panic_since = None
        if self._panic_since is None:
            return stable
        self._panic_most = max(self._panic_most, panic, ready)
        return self._panic_most

    @staticmethod
    def _desired(concurrency: float, ready: int) -> int:
        return min(max(ceil(concurrency / TARGET), floor(ready / 2), 1), 1000 * ready)


class Hpa:
    """Kubernetes' horizontal autoscaler on concurrency: every 15 s, tolerance 0.1, down after 300 s."""

    period_s = 15
    TOLERANCE = 0.1
    STABILISATION_S = 300

    def __init__(self) -> None:
        self._desired: deque[tuple[int, int]] = deque()

    def look(self, state: State) -> int:
        """By the mean of the last 15 s."""
        concurrency = state.mean_concurrency(15)
        ratio = concurrency / max(1, state.ready) / TARGET
        desired = state.up if abs(ratio - 1) <= self.TOLERANCE else max(1, ceil(concurrency / TARGET))
        self._desired.append((state.second, desired))
        while self._desired[0][0] <= state.second - self.STABILISATION_S:
            self._desired.popleft()
        if desired < state.up:
            return min(state.up, max(one for _, one in self._desired))
        return desired


def static(traffic: Traffic, engines: Engines) -> tuple[int, Run]:
    """The smallest fixed fleet in which `STATIC_SHARE` of requests are in time."""
    low, high = 1, max(2, ceil(float(traffic.work.max())) + 1)
    while low < high:
        middle = (low + high) // 2
        if attained(traffic, np.full(traffic.seconds, float(middle)), engines.wait_s) >= STATIC_SHARE:
            high = middle
        else:
            low = middle + 1
    return low, _fixed(traffic, engines, np.full(traffic.seconds, float(low)))


def attained(traffic: Traffic, ready: Floats, wait_s: int) -> float:
    """Part of the requests in time, where the number of ready replicas is given by second."""
    return attainment(traffic, served(traffic, ready), wait_s)


def scheduled(traffic: Traffic, engines: Engines) -> Run:
    """By the hour of the day: what the busiest minute of that hour needs on any day of the same trace.

    So it knows the future, but for what differs from day to day and within hours.
    """
    needs = _minutes(traffic)
    of_hour = np.zeros(24)
    hours = np.arange(traffic.seconds) // 3600 % 24
    np.maximum.at(of_hour, hours, needs)
    ready = of_hour[hours]
    return _fixed(traffic, engines, ready, _ahead(ready, engines.cold_start_s))


def clairvoyant(traffic: Traffic, engines: Engines) -> Run:
    """What each minute needs, known beforehand: replicas start early enough, and stay over gaps for which
    going would cost more than staying.
    """
    needs = _minutes(traffic)
    return _fixed(traffic, engines, needs, _ahead(needs, engines.cold_start_s))


def _minutes(traffic: Traffic) -> Floats:
    """By second, the replicas that the second's minute needs."""
    edges = np.arange(0, traffic.seconds, ORACLE_WINDOW_S)
    spans = np.diff(np.append(edges, traffic.seconds))
    loads = np.add.reduceat(traffic.work, edges) / spans
    return np.repeat(np.maximum(1.0, np.ceil(loads / ORACLE_FILL)), spans)


def _ahead(ready: Floats, cold_start_s: int) -> Floats:
    """Replicas that are paid for, so that those are ready: the most within the time that a start takes."""
    padded = np.pad(ready, (0, cold_start_s), mode="edge")
    paid = ready.copy()
    span = 1
    while span < cold_start_s + 1:  # maxima of windows by doubling
        step = min(span, cold_start_s + 1 - span)
        padded[:-step] = np.maximum(padded[:-step], padded[step:])
        span += step
    paid[:] = padded[: len(ready)]
    return paid


def _fixed(traffic: Traffic, engines: Engines, ready: Floats, paid: Floats | None = None) -> Run:
    paid = ready if paid is None else paid
    rises = np.maximum(np.diff(paid), 0)
    in_time = attained(traffic, ready, engines.wait_s)
    return Run(float(paid.sum()), in_time, int((rises > 0).sum()), int(rises.sum()), ready, paid)
