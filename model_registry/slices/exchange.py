"""Exchange: the task of a process that keeps its slices: reports, gets more, gives back.

Nothing that uses a slice waits for it, but for a moment where it is short (`topped_up`). Without Redis it
goes on trying; what the slices are good for meanwhile is theirs to say (`split.allowance`).
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
from collections.abc import Callable, Sequence
from secrets import token_hex
from typing import NamedTuple

from model_registry.errors import RegistryError
from model_registry.slices.config import SlicesConfig
from model_registry.slices.slice import Slice
from model_registry.slices.split import Share, Terms, even_part
from model_registry.slices.store import Answer, Report, SliceStore

_log = logging.getLogger(__name__)
_ANSWER_SHARE = 0.25
"""Part of a lease that an answer is waited for: several tries fit into one."""
_RETRY_S = 0.004
_MAX_RETRY_S = 0.016
_PARTED_S = 0.001
"""Pause between two reports that follow each other at once."""

OnGossip = Callable[[str, str], None]
"""Takes the name of another worker and what it tells."""


class _Reported(NamedTuple):
    """What the last report of a slice said, and when it has to be said again."""

    share: Share
    again_s: float
    settled: bool
    """What was held then is what should be."""


class Exchange:
    """One per gateway process; `run` is its supervised task."""

    def __init__(self, config: SlicesConfig, store: SliceStore, expected_workers: int) -> None:
        self.name = f"{os.getpid():x}.{token_hex(8)}"
        """Unlike every other worker's that ever was."""
        self._config = config
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._slices: dict[str, Slice] = {}
        self._reported: dict[str, _Reported] = {}
        self._urgent: set[str] = set()
        self._wake = asyncio.Event()
        self._answered = asyncio.Event()
        self._number = 0
        self._rank, self._workers = 0, config.expected_workers or expected_workers
        self._started_s = self._loop.time()
        self._heard_until_s = -math.inf
        self._reachable = True
        self._new_until_s = math.inf
        """Until then this worker cannot have held anything before Redis was away."""
        self._gossip: Callable[[], str] | None = None
        self._on_gossip: OnGossip | None = None
        self.lost_reports = 0
        """That were not answered in time, since the start."""
        self.on_change: Callable[[], None] | None = None
        """Called when what may be used of slices may have changed."""

    @property
    def connected(self) -> bool:
        """Whether what is held is confirmed."""
        return self._loop.time() < self._heard_until_s

    @property
    def workers(self) -> int:
        """Workers that share, as last heard; as expected where none was heard."""
        return self._workers

    def gossips(self, tell: Callable[[], str], hear: OnGossip) -> None:
        """Send what `tell` returns with every regular report; give `hear` what the others send."""
        self._gossip, self._on_gossip = tell, hear

    def open(self, name: str, total: int, *, window_s: float = 0.0, standing: bool = False) -> Slice:
        """The slice of a resource, made on first use. A total that has changed holds from now on."""
        found = self._slices.get(name)
        if found is None:
            found = Slice(name, total, window_s, self._config.lease_s, standing=standing)
            found.terms = found.terms._replace(until_s=self._since_s(found), even=self._even(total))
            self._slices[name] = found
        elif found.total != total:
            found.total = total
            found.terms = found.terms._replace(even=self._even(total))
            self.want_now(found)
        return found

    def held(self, name: str) -> Slice | None:
        """The slice of a resource, where there is one."""
        return self._slices.get(name)

    def close(self, name: str) -> None:
        """Hold nothing more of a resource that is no more; what others know of it lapses."""
        self._slices.pop(name, None)
        self._reported.pop(name, None)

    def want_now(self, one: Slice) -> None:
        """Report on it at once: it is short, or holds what another one needs."""
        self._urgent.add(one.name)
        self._wake.set()

    async def topped_up(self, one: Slice, units: int, within_s: float) -> bool:
        """Wait until there is room for `units`, no longer than `within_s`."""
        deadline_s = self._loop.time() + within_s
        pause_s = _RETRY_S
        one.waiting += units
        try:
            while one.room(self._loop.time()) < units:
                left_s = deadline_s - self._loop.time()
                self.want_now(one)
                if left_s <= 0 or not self._reachable or not await self._next_answer(left_s):
                    return self._unanswered(one, units)
                if one.room(self._loop.time()) < units:
                    await asyncio.sleep(min(pause_s, max(0.0, deadline_s - self._loop.time())))
                    pause_s = min(2 * pause_s, _MAX_RETRY_S)
        finally:
            one.waiting -= units
        return True

    def _unanswered(self, one: Slice, units: int) -> bool:
        """Nobody has said anything of it yet: go by the even part, as if it had been opened without Redis."""
        if not one.heard and not one.standing:
            one.terms = one.terms._replace(until_s=-math.inf)
        return one.room(self._loop.time()) >= units

    async def run(self) -> None:
        """Report and listen until cancelled; then give everything back."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._keep_reporting())
                tasks.create_task(self._listen())
        finally:
            await self._leave()

    # -- reports ------------------------------------------------------------------------------------------

    async def _keep_reporting(self) -> None:
        regular_s = 0.0
        while True:
            now_s = self._loop.time()
            regular = now_s >= regular_s
            if regular:
                regular_s = now_s + self._config.report_s
            await self._report(regular=regular)
            try:
                async with asyncio.timeout_at(regular_s):
                    await asyncio.sleep(_PARTED_S)
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()

    async def _report(self, *, regular: bool) -> None:
        sent_s = self._loop.time()
        due = [one for one in list(self._slices.values()) if self._is_due(one, sent_s, regular=regular)]
        reports = [self._prepare(one, sent_s) for one in due]
        self._changed()
        self._urgent.clear()
        gossip = self._gossip() if regular and self._gossip is not None else ""
        if not regular and not reports:
            return
        self._number += 1
        try:
            within_s = self._config.lease_s * _ANSWER_SHARE
            answer = await self._store.report(
                self.name, self._number, self._config.lease_s, gossip, reports, within_s
            )
        except RegistryError as error:
            _log.debug("slices wait for Redis", extra={"reason": str(error)})
            self.lost_reports += 1
            self._lost()
        else:
            self._learn(answer, due, sent_s)
        self._changed()
        self._answered.set()
        self._answered = asyncio.Event()

    def _changed(self) -> None:
        if self.on_change is not None:
            self.on_change()

    def _is_due(self, one: Slice, now_s: float, *, regular: bool) -> bool:
        last = self._reported.get(one.name)
        if one.name in self._urgent or (last is None and (one.standing or one.share(now_s).demand)):
            return True
        if not regular or last is None:
            return False
        share = one.share(now_s)
        return now_s >= last.again_s or not last.settled or share[:2] != last.share[:2]

    def _prepare(self, one: Slice, now_s: float) -> Report:
        """What to say of it. What it says not to keep, it uses no more from here on."""
        share, allowed = one.share(now_s), one.allowed(now_s)
        target = one.target(self.name, now_s)
        if now_s < one.terms.until_s:
            keep = max(share.used, min(allowed, target))
            one.terms = one.terms._replace(held=min(one.terms.held, keep))
        else:  # what goes by the even part cannot be given up before there is an answer
            keep = max(share.used, allowed)
        first = one.terms.even if now_s < self._new_until_s else 0
        return Report(
            one.name,
            one.total,
            one.window_s,
            keep,
            max(0, target - keep),
            first,
            share,
            urgent=one.name in self._urgent,
        )

    def _learn(self, answer: Answer, due: Sequence[Slice], sent_s: float) -> None:
        self._reachable = True
        if not math.isfinite(self._new_until_s):
            self._new_until_s = self._loop.time() + answer.settles_in_s
        # Shorter than Redis lets it live: what lapses is noticed with the next report only.
        self._heard_until_s = sent_s + self._config.lease_s - self._config.report_s
        # While all come back one by one, how many there were is the better guess.
        counted = answer.settles_in_s == 0 or answer.workers >= self._workers
        if counted and (answer.rank, answer.workers) != (self._rank, self._workers):
            self._rank, self._workers = answer.rank, answer.workers
            for one in self._slices.values():
                one.terms = one.terms._replace(even=self._even(one.total))
        now_s = self._loop.time()
        again_s = sent_s + self._config.lease_s / 3
        for one, grant in zip(due, answer.grants, strict=True):
            unheld = max(0, one.total - grant.held - sum(share.held for share in grant.others.values()))
            one.terms = Terms(grant.held, self._heard_until_s, self._even(one.total), self._even(unheld))
            one.heard, one.others = True, grant.others
            one.reported(now_s)
            share = one.share(now_s)
            settled = grant.held == one.target(self.name, now_s)
            self._reported[one.name] = _Reported(share, again_s, settled)
            if grant.held == 0 and not one.standing and share.demand == 0:
                self.close(one.name)

    def _lost(self) -> None:
        """No answer: whether what was said counts is not known, so it is all said again."""
        self._reachable = False
        self._reported = {
            name: last._replace(again_s=0.0, settled=False) for name, last in self._reported.items()
        }

    def _even(self, total: int) -> int:
        return even_part(total, self._rank, self._workers)

    def _since_s(self, one: Slice) -> float:
        """Until when nothing is held of a slice that is new here.

        Where nobody answers, what others hold of it is not known. Slots wait for one lease, in which that
        lapses; a tenant that has not been here lately is not made to wait for Redis.
        """
        if not self._reachable and not one.standing:
            return -math.inf
        if math.isfinite(self._heard_until_s):
            return self._heard_until_s
        return self._started_s - one.window_s

    async def _next_answer(self, within_s: float) -> bool:
        try:
            async with asyncio.timeout(within_s):
                await self._answered.wait()
        except TimeoutError:
            return False
        return self._reachable

    async def _leave(self) -> None:
        now_s = self._loop.time()
        reports = []
        for one in self._slices.values():
            share = Share(used=one.usage.total(now_s) if one.window_s else 0)
            reports.append(Report(one.name, one.total, one.window_s, share.used, 0, 0, share, urgent=False))
            one.terms = Terms(0, now_s, self._even(one.total))
        self._number += 1
        try:
            await self._store.report(self.name, self._number, 0.0, "", reports, self._config.report_s)
        except RegistryError:
            pass  # what it held lapses by itself

    # -- news ---------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        last = "$"
        while True:
            try:
                last = last if last != "$" else await self._store.newest()
                last, news = await self._store.news(last, self._config.lease_s)
            except RegistryError:
                last = "$"
                await asyncio.sleep(self._config.report_s)
                continue
            for one in news:
                if one["worker"] != self.name:
                    self._hear(one)

    def _hear(self, one: dict[str, str]) -> None:
        worker = one["worker"]
        if (gossip := one.get("gossip")) is not None:
            if self._on_gossip is not None:
                self._on_gossip(worker, gossip)
            return
        found = self._slices.get(one.get("short", ""))
        if found is None:
            return
        now_s = self._loop.time()
        known = found.others.get(worker, Share())
        found.others = {**found.others, worker: known._replace(demand=int(one["demand"]))}
        if found.terms.held > max(found.usage.total(now_s), found.target(self.name, now_s)):
            self.want_now(found)
