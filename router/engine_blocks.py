"""EngineBlocks: which blocks an engine says are in its KV cache, by our own hashes. Pure.

An engine names blocks by hashes of its own and tells the tokens of each; following each block's parent, the
tokens are hashed as those of prompts are (`router.block_hashes`). One process reads an engine's events, and
tells the others what followed from them as changes, which hold hashes and no tokens. Who misses an event or a
change forgets what it knew and learns anew: what is known is there, but what is not known may be there, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from inference.kv_events import Created, KvEvent, Removed, Stored
from router.block_hashes import Chain, extended

_ROOT = Chain()


class Step(msgspec.Struct, array_like=True):
    """One thing that happened to what is known of one rank."""

    rank: int
    block: int | None
    """The engine's hash of a block that came or went; None: all of the rank's are forgotten."""
    chain: tuple[int, int, int] | None = None
    """How far its sequence is hashed with the block; None: it went."""
    blocks: tuple[int, ...] = ()
    """Our hashes of what is whole by it."""


class Change(msgspec.Struct, array_like=True):
    """What one reading changed."""

    number: int
    """Follows the number of the change before."""
    steps: list[Step]
    ranks: dict[int, tuple[int, int]]
    """Of each rank, the id of the last event and the attention window that counts."""
    is_whole: bool
    """What is not known afterwards is not there."""
    starts_anew: bool
    """Nothing before it matters."""


class _Known(NamedTuple):
    chain: Chain
    blocks: tuple[int, ...]


class _Rank:
    """What one attention-DP rank's cache holds; an engine without attention DP has rank 0 only."""

    __slots__ = ("is_whole", "known", "last", "window")

    def __init__(self) -> None:
        self.known: dict[int, _Known] = {}
        self.last: int | None = None
        self.is_whole = False
        self.window = 0
        """The largest attention window: a prefix can be reused only where the layers that see all have it."""


class EngineBlocks:
    """One engine's; `block_tokens` is the size of our blocks, whatever the engine's is."""

    def __init__(self, block_tokens: int) -> None:
        self.block_tokens = block_tokens
        self.gaps = 0
        """How often events or changes were missed."""
        self._ranks: dict[int, _Rank] = {}
        self._counts: dict[int, int] = {}
        """Our hash -> how many ranks have it."""
        self._number = 0
        self._unbroken = True
        """Every change since the engine's first event, or a new start, is in here."""
        self._told_whole = False

    def __len__(self) -> int:
        return len(self._counts)

    @property
    def is_whole(self) -> bool:
        """What is not known is not there: every event since the cache was made has been heard."""
        return self._unbroken and self._told_whole

    def held(self, blocks: Sequence[int]) -> int:
        """How many of a prompt's first blocks the engine has.

        Engines drop a block after those behind it, so that the last one that is there is found by doubling,
        then halving; most endpoints do not even have the first.
        """
        counts, count = self._counts, len(blocks)
        if count == 0 or blocks[0] not in counts:
            return 0
        low, high = 1, 2
        while high <= count and blocks[high - 1] in counts:
            low, high = high, 2 * high
        high = min(high - 1, count)
        while low < high:
            middle = (low + high + 1) // 2
            if blocks[middle - 1] in counts:
                low = middle
            else:
                high = middle - 1
        return low

    def read(self, events: Iterable[KvEvent]) -> Change | None:
        """Take over an engine's events, in their order; what is to be told. None: nothing changed."""
        steps: list[Step] = []
        anew = self._number == 0
        heard = False
        for event in events:
            heard = True
            number = event.attention_dp_rank or 0
            rank = self._ranks.get(number)
            if rank is None:
                rank = self._ranks[number] = _Rank()
            is_new = isinstance(event.data, Created) and event.event_id == 0
            if not is_new and event.event_id != (-1 if rank.last is None else rank.last) + 1:
                self.gaps += rank.last is not None
                self._step(Step(number, None), steps)
                rank.is_whole = False
            rank.last = event.event_id
            if isinstance(event.data, Created):
                if is_new:
                    self._step(Step(number, None), steps)
                    rank.is_whole, rank.window = True, event.window_size
                    anew = anew or len(self._ranks) == 1
                rank.window = max(rank.window, event.window_size)
            elif event.window_size >= rank.window:
                self._take(number, rank, event.data, steps)
        if not heard:
            return None
        self._number += 1
        self._told_whole = all(rank.is_whole for rank in self._ranks.values())
        self._unbroken = self._unbroken or anew
        ranks = {name: (one.last, one.window) for name, one in self._ranks.items() if one.last is not None}
        return Change(self._number, steps, ranks, self.is_whole, anew)

    def follow(self, change: Change) -> None:
        """Take over what another process read; one that is known already is left."""
        if change.number <= self._number and not change.starts_anew:
            return
        if change.number != self._number + 1 and not change.starts_anew:
            self.gaps += self._number > 0
            self._unbroken = False
            for number in self._ranks:
                self._apply(Step(number, None))
        self._unbroken = self._unbroken or change.starts_anew
        self._number, self._told_whole = change.number, change.is_whole
        for step in change.steps:
            self._apply(step)
        for number, (last, window) in change.ranks.items():
            rank = self._rank(number)
            rank.last, rank.window, rank.is_whole = last, window, change.is_whole

    def _take(self, number: int, rank: _Rank, data: object, steps: list[Step]) -> None:
        if isinstance(data, Removed):
            for block in data.block_hashes:
                if block in rank.known:
                    self._step(Step(number, block), steps)
        elif isinstance(data, Stored):
            self._store(number, rank, data, steps)

    def _store(self, number: int, rank: _Rank, data: Stored, steps: list[Step]) -> None:
        """Blocks whose parent is not known, or that hold more than tokens, cannot be hashed our way."""
        if data.parent_hash is None:
            chain = _ROOT
        elif (parent := rank.known.get(data.parent_hash)) is not None:
            chain = parent.chain
        else:
            return
        names, ids, size = [], list[int](), len(data.blocks[0].tokens) if data.blocks else 0
        for block in data.blocks:
            if len(block.tokens) != size or any(token.token_extra_id for token in block.tokens):
                break
            names.append(block.block_hash)
            ids += [token.token_id for token in block.tokens]
        if not size:
            return
        try:
            found = extended(chain, ids, size, self.block_tokens)
        except ValueError:
            return  # the unfilled end of a sequence, or nothing that ours could be made of
        for name, (end, whole) in zip(names, found, strict=True):
            self._step(Step(number, name, (end.tokens, end.hash, end.rest), whole), steps)

    def _step(self, step: Step, steps: list[Step]) -> None:
        steps.append(step)
        self._apply(step)

    def _rank(self, number: int) -> _Rank:
        rank = self._ranks.get(number)
        if rank is None:
            rank = self._ranks[number] = _Rank()
        return rank

    def _apply(self, step: Step) -> None:
        known = self._rank(step.rank).known
        if step.block is None:
            for one in known.values():
                self._drop(one.blocks)
            known.clear()
            return
        before = known.pop(step.block, None)
        if before is not None:
            self._drop(before.blocks)
        if step.chain is not None:
            known[step.block] = _Known(Chain(*step.chain), step.blocks)
            for block in step.blocks:
                self._counts[block] = self._counts.get(block, 0) + 1

    def _drop(self, blocks: Iterable[int]) -> None:
        counts = self._counts
        for block in blocks:
            if counts[block] == 1:
                del counts[block]
            else:
                counts[block] -= 1


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Change).decode


def packed(change: Change) -> bytes:
    """A change as it is told to other processes."""
    return _encode(change)


def unpacked(data: bytes) -> Change:
    """What `packed` gave. Raises ValueError."""
    return _decode(data)
