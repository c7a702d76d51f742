"""Residency decision: which copies come into which server's memory, and which go to make room. Pure.

Nothing is remembered from round to round: what is loading or leaving is among what is there, so that another
leader decides the same. A copy that is busy, pinned or waited for never goes; nothing comes in before there
is room for it; on each GPU one copy is loaded at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from heapq import nlargest
from typing import NamedTuple

from controller.residency.rooms import Copy, Evict, Load, ModelNeed, ServerRoom
from controller.residency.value import Outlook, absence_s, density

Act = Load | Evict

UNLOAD_S = 1.0
"""What draining an idle copy and unloading it takes, about."""
EVICT_AHEAD_S = 2.0
"""How long before its GPU can load again a copy goes to make room; until then it may yet be of use."""
WORTH = 4.0
"""A load that nobody waits for has to save so many times the waiting that its victims will cost."""
SETTLE_S = 3.0
"""How long reports of requests in flight may lag."""
TRIED = 3
"""Models that are looked at, of those nobody waits for; the rest is worth less still."""
SURPLUS = 0.1
"""Share of its value that a copy keeps when there are more of its model than the load asks for."""


class _Gpu:
    """When a GPU can begin to load another copy."""

    def __init__(self) -> None:
        self.free_in_s = 0.0


class _Room:
    """One server, and what has been promised of it in this round."""

    def __init__(self, server: ServerRoom, gpu: _Gpu) -> None:
        self.server, self.gpu = server, gpu
        held = sum(copy.mib for copy in server.copies)
        loading = any(copy.state == "loading" for copy in server.copies)
        # What a copy that is being loaded will take cannot be measured yet.
        self.taken = held if server.used_mib is None or loading else max(held, server.used_mib)
        self.leaving = sum(copy.mib for copy in server.copies if copy.state == "leaving")
        self.promised = 0.0
        self.gone: set[str] = set()
        self.called: dict[str, Copy | None] = {copy.called: copy for copy in server.copies}
        """Its copies by what they are called there; None: one that was promised in this round."""

    @property
    def free_mib(self) -> float:
        """Now."""
        return self.server.budget_mib - self.taken - self.promised

    @property
    def coming_mib(self) -> float:
        """Once all that is leaving has left."""
        return self.free_mib + self.leaving


class _Option(NamedTuple):
    """One way to bring a copy in; the least `cost_s` is the best."""

    cost_s: float
    name: str
    room: _Room
    victims: tuple[Copy, ...]
    loss_s: float


class _Round:
    """What one decision goes by, and what it has come to so far."""

    def __init__(
        self,
        now_s: float,
        servers: Sequence[ServerRoom],
        models: Sequence[ModelNeed],
        outlook: Callable[[str], Outlook],
    ) -> None:
        self.now_s = now_s
        self.needs = {need.name: need for need in models}
        self.outlook = cache(outlook)
        gpus = {server.gpu or server.name: _Gpu() for server in servers}
        self.rooms = [_Room(server, gpus[server.gpu or server.name]) for server in servers]
        self.copies: Counter[str] = Counter()
        """By model, without those that leave."""
        for room in self.rooms:
            for copy in room.server.copies:
                if copy.state != "leaving":
                    self.copies[copy.model] += 1
                if copy.state == "loading":
                    left_s = self._load_s(copy.model) - (now_s - copy.since_s)
                    room.gpu.free_in_s = max(room.gpu.free_in_s, left_s, UNLOAD_S)
        self.acts: list[Act] = []

    def _load_s(self, model: str) -> float:
        need = self.needs.get(model)
        return UNLOAD_S if need is None else need.load_s

    # What a copy is worth ----------------------------------------------------------------------

    def _worth_s(self, copy: Copy) -> float:
        """Waiting that its going will cost."""
        need = self.needs.get(copy.model)
        if need is None:
            return 0.0
        worth = absence_s(self.outlook(copy.model), need.load_s)
        return worth * SURPLUS if self.copies[copy.model] > max(1, need.wanted) else worth

    def _may_go(self, copy: Copy) -> bool:
        """A copy that has just come up is about to be busy: those who waited for it have not been counted."""
        if copy.state != "ready" or copy.busy or self.now_s - copy.since_s < SETTLE_S:
            return False
        need = self.needs.get(copy.model)
        if need is None:
            return True
        return not need.pinned and not need.waiting and self.copies[copy.model] > need.least

    def _in_the_way(self, room: _Room, need: ModelNeed) -> tuple[Copy, ...] | None:
        """Another deployment's copy by the same name, which a server has once; None: that stays."""
        if need.called not in room.called:
            return ()
        copy = room.called[need.called]
        if copy is None or copy.model == need.name or copy.replica in room.gone or not self._may_go(copy):
            return None
        return (copy,)

    def _victims(self, room: _Room, need: ModelNeed) -> tuple[Copy, ...] | None:
        """Those whose going costs least for what they free; None: not even all that may go are enough."""
        first = self._in_the_way(room, need)
        if first is None:
            return None
        missing_mib = need.mib - room.coming_mib - sum(copy.mib for copy in first)
        if missing_mib <= 1e-9:
            return first
        going = [c for c in room.server.copies if c.replica not in room.gone and self._may_go(c)]
        going = [copy for copy in going if copy not in first]
        going.sort(key=lambda copy: (self._worth_s(copy) / max(copy.mib, 1e-9), copy.replica))
        chosen: list[Copy] = []
        for copy in going:
            if missing_mib <= 1e-9:
                break
            chosen.append(copy)
            missing_mib -= copy.mib
        if missing_mib > 1e-9:
            return None
        for copy in list(chosen):  # what the last one made needless may stay
            if missing_mib + copy.mib <= 1e-9:
                chosen.remove(copy)
                missing_mib += copy.mib
        return (*first, *chosen)

    def density(self, need: ModelNeed) -> float:
        """Waiting that a copy saves, per MiB."""
        return density(self.outlook(need.name), need.load_s, need.mib)

    def further_s(self, need: ModelNeed) -> float:
        """Waiting that one more copy saves, where there is one."""
        return _waited_s(need) + SURPLUS * max(1.0, self.outlook(need.name).rate) * need.load_s

    def is_any_idle(self) -> bool:
        """Whether any GPU could load at once."""
        return any(room.gpu.free_in_s <= 0 and room.server.open for room in self.rooms)

    # Bringing copies in ------------------------------------------------------------------------

    def _options(self, need: ModelNeed) -> Iterator[_Option]:
        rate = need.waiting + self.outlook(need.name).rate
        for room in self.rooms:
            if not room.server.open or need.mib > room.server.budget_mib + 1e-9:
                continue
            victims = self._victims(room, need)
            if victims is None:
                continue
            loss_s = sum(map(self._worth_s, victims))
            delay_s = room.gpu.free_in_s
            if victims or room.free_mib + 1e-9 < need.mib:
                delay_s = max(delay_s, UNLOAD_S)
            yield _Option(max(1.0, rate) * delay_s + loss_s, room.server.name, room, victims, loss_s)

    def bring(self, need: ModelNeed, gain_s: float, reason: str) -> bool:
        """Load a copy, or make room for it, unless that costs more than `gain_s`; False: nothing was done."""
        option = min(self._options(need), default=None)
        if option is None or gain_s <= 0 or option.loss_s > gain_s:
            return False
        room = option.room
        for copy in option.victims if room.gpu.free_in_s <= EVICT_AHEAD_S else ():
            self.acts.append(
                Evict(copy.replica, copy.model, room.server.name, f"makes room for {need.name}, {reason}")
            )
        for copy in option.victims:
            room.gone.add(copy.replica)
            room.leaving += copy.mib
            self.copies[copy.model] -= 1
        if not option.victims and room.free_mib + 1e-9 >= need.mib and room.gpu.free_in_s <= 0:
            self.acts.append(Load(need.name, room.server.name, reason))
        room.promised += need.mib
        room.called[need.called] = None
        room.gpu.free_in_s = max(room.gpu.free_in_s, UNLOAD_S if option.victims else 0.0) + need.load_s
        self.copies[need.name] += 1
        return True


def place(
    now_s: float,
    servers: Sequence[ServerRoom],
    models: Sequence[ModelNeed],
    outlook: Callable[[str], Outlook],
) -> tuple[Act, ...]:
    """What to begin now: every `Load` fits beside all that is there, what is leaving included.

    `outlook`: what is expected of a model's requests. First come the copies that a deployment has whatever
    the load, then those that are asked for, by how many wait and how long; then, into room that is free or
    clearly worth less, what is likely to be asked for.
    """
    round_ = _Round(now_s, servers, models, outlook)
    models = [need for need in models if not need.failed]
    for need in sorted(models, key=_promise):
        for _ in range(need.least - round_.copies[need.name]):
            round_.bring(need, float("inf"), "kept in memory")
    for need in sorted(models, key=_urgency):
        if need.waiting and not round_.copies[need.name]:
            round_.bring(need, _patience_s(need), _asked_for(need))
        elif round_.copies[need.name]:
            for _ in range(need.wanted - round_.copies[need.name]):
                if not round_.bring(need, round_.further_s(need), f"{need.wanted} copies wanted"):
                    break
    if round_.is_any_idle():
        absent = [need for need in models if not round_.copies[need.name]]
        for need in nlargest(TRIED, absent, key=round_.density):
            round_.bring(need, round_.density(need) * need.mib / WORTH, "likely to be asked for")
    return tuple(round_.acts)


def _promise(need: ModelNeed) -> tuple[bool, str]:
    return not need.pinned, need.name


def _urgency(need: ModelNeed) -> tuple[float, str]:
    """Most seconds waited first."""
    return -_waited_s(need), need.name


def _waited_s(need: ModelNeed) -> float:
    return need.waiting * max(need.oldest_s, 1e-3)


def _patience_s(need: ModelNeed) -> float:
    """What its load saves those who wait: it grows with their number and time, so that all get their turn."""
    return need.waiting * (need.load_s + need.oldest_s)


def _asked_for(need: ModelNeed) -> str:
    return f"{need.waiting} waiting for up to {need.oldest_s:.1f} s"
