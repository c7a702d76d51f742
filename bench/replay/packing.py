"""Packing: a catalogue of models on fewer GPUs than hold them, in simulated time, by the controller's rule.

Every copy takes one slot of its GPU. A request for a model that is in memory is served at once; others are
held until a copy is loaded. What is simulated is memory and loading; a copy takes all requests that come.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from functools import partial
from math import exp
from typing import NamedTuple, Protocol

from bench.replay.catalogue import Arrivals
from controller.residency.decide import place
from controller.residency.rooms import Copy, Evict, Load, ModelNeed, ServerRoom
from controller.residency.value import Outlook

LATE_S = 2.0


class Card(NamedTuple):
    """What the simulated GPUs are like."""

    gpus: int
    slots: int = 8
    load_s: float = 20.0
    unload_s: float = 1.0
    service_s: float = 5.0
    """Of one request, during which its copy cannot go."""
    warm_s: float = 3600.0
    """Requests that come earlier are not counted: all GPUs are empty at first."""
    look_s: float = 30.0
    """How often the controller decides though nothing has happened, and 1 s while something is held up."""


class Foresight(Protocol):
    """What a policy expects; it is told of every request."""

    def seen(self, now_s: float, model: str, arrivals: int) -> None: ...
    def outlook(self, now_s: float, model: str) -> Outlook: ...


class Packed(NamedTuple):
    """One run."""

    requests: int
    cold: int
    """Requests for models that were neither in memory nor being loaded."""
    late: int
    """Requests that waited for longer than `LATE_S`."""
    unasked: int
    """Those of them whose model nobody had asked for before: requests teach no rule to expect them."""
    worst_s: float
    """The longest wait."""
    loads: int
    most_in_memory: int
    """On one GPU at any time: no more than its slots."""

    @property
    def cold_percent(self) -> float:
        return 100 * self.cold / self.requests

    @property
    def late_percent(self) -> float:
        return 100 * self.late / self.requests

    @property
    def unasked_percent(self) -> float:
        return 100 * self.unasked / self.requests


def name_of(number: int) -> str:
    """Of a model."""
    return f"m{number:03}"


class _Server:
    def __init__(self, name: str) -> None:
        self.name = name
        self.copies: dict[str, Copy] = {}
        """By model."""


class _Run:
    def __init__(self, work: Arrivals, card: Card, foresight: Foresight, ahead: bool) -> None:
        self.ahead = ahead
        self.card, self.foresight = card, foresight
        self.models = [name_of(number) for number in range(work.of_models)]
        self.idle = {model: ModelNeed(model, 1.0, card.load_s) for model in self.models}
        self.servers = [_Server(f"gpu{number}") for number in range(card.gpus)]
        self.where: dict[str, _Server] = {}
        """Of models that are ready or coming."""
        self.ready: set[str] = set()
        self.busy_until: dict[str, float] = dict.fromkeys(self.models, 0.0)
        self.held: dict[str, list[float]] = {}
        self.coming: list[tuple[float, int, Callable[[float], None]]] = []
        self.number = 0
        self.asked: set[str] = set()
        """Models of which a request has been served."""
        self.requests = self.cold = self.late = self.unasked = self.loads = self.most = 0
        self.worst_s = 0.0

    def at(self, when_s: float, what: Callable[[float], None]) -> None:
        self.number += 1
        heapq.heappush(self.coming, (when_s, self.number, what))

    def arrive(self, now_s: float, model: str) -> None:
        counts = now_s >= self.card.warm_s
        self.requests += counts
        self.foresight.seen(now_s, model, 1)
        if model in self.ready:
            self.asked.add(model)
            self.busy_until[model] = now_s + self.card.service_s
            return
        new = model not in self.held
        self.held.setdefault(model, []).append(now_s)
        if model not in self.where:
            self.cold += new and counts
        if new:
            self.decide(now_s)

    def look(self, now_s: float) -> None:
        if self.ahead or self.held:
            self.decide(now_s)
        stuck = any(model not in self.where for model in self.held)
        self.at(now_s + (1.0 if stuck else self.card.look_s), self.look)

    def decide(self, now_s: float) -> None:
        for act in place(now_s, self._rooms(now_s), self._needs(now_s), partial(self._outlook, now_s)):
            if isinstance(act, Load):
                self._load(now_s, act)
            else:
                self._evict(now_s, act)

    def _outlook(self, now_s: float, model: str) -> Outlook:
        known = self.foresight.outlook(now_s, model)
        return known if self.ahead or model in self.where else Outlook()

    def _rooms(self, now_s: float) -> list[ServerRoom]:
        return [
            ServerRoom(
                one.name,
                self.card.slots,
                tuple(
                    copy._replace(busy=int(self.busy_until[copy.model] > now_s))
                    for copy in one.copies.values()
                ),
            )
            for one in self.servers
        ]

    def _needs(self, now_s: float) -> list[ModelNeed]:
        needs = dict(self.idle)
        for model, since_s in self.held.items():
            needs[model] = needs[model]._replace(waiting=len(since_s), oldest_s=now_s - since_s[0])
        return list(needs.values())

    def _load(self, now_s: float, act: Load) -> None:
        server = next(one for one in self.servers if one.name == act.server)
        if any(copy.state == "loading" for copy in server.copies.values()):
            raise AssertionError(f"{server.name} loads two models at once")
        server.copies[act.model] = Copy(act.model, act.model, 1.0, "loading", 0, now_s)
        self.where[act.model] = server
        self.loads += 1
        self.most = max(self.most, len(server.copies))
        self.at(now_s + self.card.load_s, lambda then_s: self._loaded(then_s, server, act.model))

    def _loaded(self, now_s: float, server: _Server, model: str) -> None:
        server.copies[model] = Copy(model, model, 1.0, since_s=now_s)
        self.ready.add(model)
        for since_s in self.held.get(model, ()):
            if since_s >= self.card.warm_s:
                late = now_s - since_s > LATE_S
                self.late += late
                self.unasked += late and model not in self.asked
                self.worst_s = max(self.worst_s, now_s - since_s)
            self.busy_until[model] = now_s + self.card.service_s
        if self.held.pop(model, None):
            self.asked.add(model)
        self.decide(now_s)

    def _evict(self, now_s: float, act: Evict) -> None:
        if self.busy_until[act.model] > now_s:
            raise AssertionError(f"{act.model} goes while it is busy")
        server = self.where.pop(act.model)
        server.copies[act.model] = server.copies[act.model]._replace(state="leaving")
        self.ready.discard(act.model)
        self.at(now_s + self.card.unload_s, lambda then_s: self._unloaded(then_s, server, act.model))

    def _unloaded(self, now_s: float, server: _Server, model: str) -> None:
        del server.copies[model]
        self.decide(now_s)


def packed(work: Arrivals, card: Card, foresight: Foresight, *, ahead: bool = False) -> Packed:
    """All arrivals, and the loads that they still wait for at the end. `ahead`: loads before anybody asks."""
    run = _Run(work, card, foresight, ahead)
    run.at(0.0, run.look)
    for time_s, number in zip(work.times_s.tolist(), work.models.tolist(), strict=True):
        while run.coming[0][0] <= time_s:
            when_s, _, what = heapq.heappop(run.coming)
            what(when_s)
        run.arrive(time_s, run.models[number])
    while run.held:
        when_s, _, what = heapq.heappop(run.coming)
        what(when_s)
    return Packed(run.requests, run.cold, run.late, run.unasked, run.worst_s, run.loads, run.most)


class Recency:
    """LRU: what was used longest ago goes first."""

    def __init__(self) -> None:
        self._last_s: dict[str, float] = {}

    def seen(self, now_s: float, model: str, arrivals: int) -> None:  # noqa: ARG002
        self._last_s[model] = now_s

    def outlook(self, now_s: float, model: str) -> Outlook:  # noqa: ARG002
        return Outlook(1e-9 * self._last_s.get(model, 0.0))


class Frequency:
    """LFU over the last hour, fading."""

    def __init__(self, window_s: float = 3600.0) -> None:
        self._window_s = window_s
        self._counts: dict[str, tuple[float, float]] = {}

    def seen(self, now_s: float, model: str, arrivals: int) -> None:
        self._counts[model] = now_s, self._count(now_s, model) + arrivals

    def _count(self, now_s: float, model: str) -> float:
        at_s, count = self._counts.get(model, (now_s, 0.0))
        return count * exp((at_s - now_s) / self._window_s)

    def outlook(self, now_s: float, model: str) -> Outlook:
        return Outlook(1e-9 * self._count(now_s, model))


class Clairvoyance:
    """Belady's rule: what is used last of all goes first. Knows all arrivals."""

    def __init__(self, work: Arrivals) -> None:
        self._next: dict[str, list[float]] = {name_of(number): [] for number in range(work.of_models)}
        for time_s, number in zip(work.times_s[::-1].tolist(), work.models[::-1].tolist(), strict=True):
            self._next[name_of(number)].append(time_s)

    def seen(self, now_s: float, model: str, arrivals: int) -> None:  # noqa: ARG002
        self._next[model].pop()

    def outlook(self, now_s: float, model: str) -> Outlook:
        times = self._next[model]
        return Outlook(1e-9 / (times[-1] - now_s + 1) if times else 0.0)


class Foreknowledge(Clairvoyance):
    """Knows all arrivals, and weighs a model by how many requests will wait for its load, and how soon.

    Least misses is not least waits: one burst keeps more requests waiting than many single ones.
    """

    def __init__(self, work: Arrivals, load_s: float) -> None:
        super().__init__(work)
        self._load_s = load_s

    def outlook(self, now_s: float, model: str) -> Outlook:
        times = self._next[model]
        if not times:
            return Outlook()
        until_s, burst = times[-1] + self._load_s, 0
        for time_s in reversed(times):
            if time_s > until_s:
                break
            burst += 1
        return Outlook(1 / (times[-1] - now_s + 1), (burst - 1) / self._load_s)
