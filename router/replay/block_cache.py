"""BlockCache: the KV cache of one simulated engine, or the one that an oracle shares among all of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence


class BlockCache:
    """Blocks by hash. Those of running requests are pinned; the rest is kept, least recently used out first.

    A request also takes private room, for what of its prompt is no whole block and for its answer: that is
    free again when it ends.
    """

    def __init__(self, blocks: int) -> None:
        self.blocks = blocks
        self._pins: dict[int, int] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()
        self._private = 0

    @property
    def in_use(self) -> int:
        """Blocks of running requests."""
        return len(self._pins) + self._private

    def held(self, prompt: Sequence[int]) -> int:
        """How many of the prompt's first blocks are here."""
        for place, block in enumerate(prompt):
            if block not in self._pins and block not in self._idle:
                return place
        return len(prompt)

    def take(self, prompt: Sequence[int], private: int) -> int | None:
        """Pin a prompt's blocks and set `private` ones aside. How many were here, or None: no room yet."""
        pins, idle = self._pins, self._idle
        held = self.held(prompt)
        woken = sum(1 for block in prompt[:held] if block not in pins)
        if self.in_use + woken + len(prompt) - held + private > self.blocks:
            return None
        for block in prompt:
            if block in pins:
                pins[block] += 1
            else:
                idle.pop(block, None)
                pins[block] = 1
        self._private += private
        while len(pins) + len(idle) + self._private > self.blocks:
            idle.popitem(last=False)
        return held

    def give_back(self, prompt: Sequence[int], private: int) -> None:
        """A request ends. The ends of prompts go before their beginnings."""
        pins, idle = self._pins, self._idle
        for block in reversed(prompt):
            if pins[block] == 1:
                del pins[block]
                idle[block] = None
            else:
                pins[block] -= 1
        self._private -= private
