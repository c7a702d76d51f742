"""Cohorts: requests that begin alike and come together, of which one computes what the others reuse. Pure.

An engine reuses the keys and values of a prompt once they are computed. Of requests that come together with
one long prefix that no engine has, each would compute it for itself; so the first one goes, as the lead of
the others, and they are released together at its first token. They go by the policy as ever, which by then
knows where the prefix is.

Where many wait anyway, requests of like length go together (`length_class`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from router.view import Ask

_PATIENCE = 1.5
"""Times its forecast by which a lead's first token may be late. One that is due later than that allows within
the time that others would wait is not waited for: they would have waited for nothing."""


class Lead:
    """A request under way whose prompt is being computed."""

    __slots__ = (
        "blocks",
        "cached_blocks",
        "depth",
        "endpoint",
        "group",
        "is_left",
        "is_over",
        "until_s",
        "when_over",
    )

    def __init__(
        self, group: tuple[str, str], endpoint: str, blocks: Sequence[int], cached_blocks: int, depth: int
    ) -> None:
        self.group = group
        """Its model, and the tenant whose cache it may count on."""
        self.endpoint = endpoint
        self.blocks = blocks
        self.cached_blocks = cached_blocks
        """Of its prompt, in the engine's cache when it was sent there."""
        self.depth = depth
        """Blocks that another prompt shares with it at least, for it to be worth waiting for."""
        self.until_s = 0.0
        """How long others wait for it at most."""
        self.is_left = False
        """It is gone, and its prompt was not computed: the next one to ask takes its place."""
        self.is_over = False
        self.when_over: list[Callable[[], None]] = []
        """Called when its prompt is computed, or it is gone."""

    def shared(self, blocks: Sequence[int]) -> int:
        """First blocks that another prompt has in common with it."""
        low, high = 0, min(len(blocks), len(self.blocks))
        while low < high:
            middle = (low + high + 1) // 2
            if blocks[middle - 1] == self.blocks[middle - 1]:
                low = middle
            else:
                high = middle - 1
        return low


class _Group:
    """The leads of one model. A prompt is looked up at the depths that occur, whatever number of leads."""

    __slots__ = ("by_block", "depths")

    def __init__(self) -> None:
        self.by_block: dict[int, list[Lead]] = {}
        """By the last of the blocks that must be shared."""
        self.depths: Counter[int] = Counter()


class Cohorts:
    """Leads of one gateway process."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, str], _Group] = {}

    def __bool__(self) -> bool:
        return bool(self._groups)

    def begins(
        self,
        model: str,
        endpoint: str,
        ask: Ask,
        cached_tokens: int,
        due_s: float,
        now_s: float,
        wait_s: float,
        least_tokens: int,
    ) -> Lead | None:
        """A request goes to `endpoint`, where its first token is due after `due_s`; the lead that it is.

        None: its prompt has fewer than `least_tokens` to compute, or takes longer than others would wait.
        """
        cached_blocks = cached_tokens // ask.block_tokens
        depth = cached_blocks + max(1, -(-least_tokens // ask.block_tokens))
        if depth > len(ask.blocks) or due_s > _PATIENCE * wait_s:
            return None
        name = model, ask.tenant
        lead = Lead(name, endpoint, ask.blocks, cached_blocks, depth)
        lead.until_s = now_s + wait_s
        group = self._groups.get(name)
        if group is None:
            group = self._groups[name] = _Group()
        group.by_block.setdefault(ask.blocks[depth - 1], []).append(lead)
        group.depths[depth] += 1
        return lead

    def lead(self, model: str, ask: Ask, holders: Iterable[tuple[str, int]], now_s: float) -> Lead | None:
        """Whom a request waits for: who computes most of what they share; None: it goes at once.

        `holders`: endpoints that it may go to, and tokens of its prompt believed to be in their caches. Where
        one has as much as a lead would give, and is not just computing it, there is nothing to wait for.
        """
        group = self._groups.get((model, ask.tenant))
        if group is None:
            return None
        blocks, count = ask.blocks, len(ask.blocks)
        found = [
            lead
            for depth in group.depths
            if depth <= count
            for lead in group.by_block.get(blocks[depth - 1], ())
            if lead.depth == depth
        ]
        if not found:
            return None
        busy = {lead.endpoint for lead in found}
        there = max((tokens for endpoint, tokens in holders if endpoint not in busy), default=0)
        best, most = None, 0
        for lead in found:
            if lead.until_s > now_s:
                shared = lead.shared(blocks)
                computed = shared - lead.cached_blocks
                if computed > most and shared * ask.block_tokens > there:
                    best, most = lead, computed
        return best

    def left(self, lead: Lead) -> bool:
        """The lead is gone, and its prompt was not computed; whether another one may take its place, as
        some wait for it."""
        if lead.is_over or not lead.when_over:
            self.over(lead)
            return False
        lead.is_left = True
        waiting, lead.when_over = lead.when_over, []
        for release in waiting:
            release()
        return True

    def over(self, lead: Lead) -> None:
        """The lead's prompt is computed, or nobody may wait for it any more; harmless when said again."""
        if lead.is_over:
            return
        lead.is_over = True
        group, block = self._groups[lead.group], lead.blocks[lead.depth - 1]
        leads = group.by_block[block]
        leads.remove(lead)
        if not leads:
            del group.by_block[block]
        group.depths[lead.depth] -= 1
        if not group.depths[lead.depth]:
            del group.depths[lead.depth]
        if not group.by_block:
            del self._groups[lead.group]
        for release in lead.when_over:
            release()


def length_class(cost: float, ratio: float) -> float:
    """What requests of like length have in common: the shortest cost of their class, where those of a class
    differ by less than the factor `ratio`; 1: each length is a class of its own."""
    if ratio <= 1.0 or cost <= 1.0:
        return cost
    return float(ratio ** math.floor(math.log(cost, ratio) + 1e-9))
