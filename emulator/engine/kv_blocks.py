"""Who holds which block of the KV cache: free, held by requests, or cached for reuse.

The accounting only; the numbers of keys and values live in `transformer.KvPool`. Full blocks are
remembered in a trie: a block's name is its parent's name plus its own token ids, compared as
values, so a match is never false. A block no request holds stays cached until its room is needed;
the least recently released goes first, and children always before their parents. Owned by the
engine's step thread.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence

from emulator.engine.errors import EngineError
from emulator.engine.kv_events import KvEventBuffer

ROOT = 0
_Key = tuple[int, tuple[int, ...]]


class NoFreeBlockError(EngineError):
    """Every block is held by a request; the scheduler must pause one."""


class BlockPool:
    """Fixed number of blocks with reference counts, prefix reuse and reservations.

    A reservation is a promise of blocks to one request: `allocate(reserved=True)` redeems it, and
    what is promised is not `available` to others.
    """

    def __init__(
        self, blocks: int, tokens_per_block: int, reuse: bool, events: KvEventBuffer | None = None
    ) -> None:
        self.blocks = blocks
        self.tokens_per_block = tokens_per_block
        self.reuse = reuse
        self._events = events
        self.reserved = 0
        self.reused_total = 0
        self._free: deque[int] = deque(range(blocks))
        self._references = [0] * blocks
        self._by_key: dict[_Key, int] = {}
        self._key_of: dict[int, _Key] = {}
        self._name_of: dict[int, int] = {}
        self._next_name = ROOT + 1
        self._evictable: OrderedDict[int, None] = OrderedDict()

    @property
    def free(self) -> int:
        """Blocks no request holds, cached ones included."""
        return len(self._free) + len(self._evictable)

    @property
    def used(self) -> int:
        """Blocks held by at least one request."""
        return self.blocks - self.free

    @property
    def cached(self) -> int:
        """Blocks kept only because a later prompt may begin with them."""
        return len(self._evictable)

    @property
    def available(self) -> int:
        """Free blocks that are promised to nobody."""
        return self.free - self.reserved

    def blocks_for(self, tokens: int) -> int:
        return -(-tokens // self.tokens_per_block)

    def match(self, tokens: Sequence[int], root: int = ROOT) -> list[int]:
        """The cached blocks that hold the longest prefix of `tokens`, one token always left to compute.

        `root` is the name under which a first block is filed; negative ones are free for callers.
        """
        if not self.reuse:
            return []
        size, name, found = self.tokens_per_block, root, list[int]()
        for start in range(0, (len(tokens) - 1) // size * size, size):
            block = self._by_key.get((name, tuple(tokens[start : start + size])))
            if block is None:
                break
            found.append(block)
            name = self._name_of[block]
        return found

    def missing(self, matched: Sequence[int], total: int) -> int:
        """Free blocks a request takes that needs `total` and shares `matched`; cached ones count."""
        return total - sum(1 for block in matched if self._references[block])

    def acquire(self, matched: Sequence[int]) -> None:
        """Takes a reference on matched blocks."""
        for block in matched:
            self._evictable.pop(block, None)
            self._references[block] += 1
        self.reused_total += len(matched)

    def allocate(self, reserved: bool = False) -> int:
        """A block for one request, evicting the least recently released cached one when none is free."""
        if not reserved and self.available < 1:
            raise NoFreeBlockError("no free KV cache block")
        if reserved:
            self.reserved -= 1
        block = self._free.popleft() if self._free else self._evict()
        self._references[block] = 1
        return block

    def name(self, parent: int, block: int, tokens: Sequence[int]) -> int:
        """Makes a full block findable under `parent`; returns the name its children are filed under.

        When equal content is known already, the older block keeps the name and this one stays private.
        """
        if not self.reuse:
            return ROOT
        key = (parent, tuple(tokens))
        known = self._by_key.get(key)
        if known is not None:
            return self._name_of[known]
        self._by_key[key] = block
        self._key_of[block] = key
        self._name_of[block] = self._next_name
        self._next_name += 1
        if self._events is not None:
            self._events.stored(parent, self._name_of[block], tokens)
        return self._name_of[block]

    def name_of(self, block: int) -> int:
        return self._name_of[block]

    def release(self, blocks: Sequence[int]) -> None:
        """Gives up one reference on each block of a table, the deepest first."""
        for block in reversed(blocks):
            self._references[block] -= 1
            if self._references[block]:
                continue
            if block in self._key_of:
                self._evictable[block] = None
            else:
                self._free.append(block)

    def _evict(self) -> int:
        block, _ = self._evictable.popitem(last=False)
        del self._by_key[self._key_of.pop(block)]
        name = self._name_of.pop(block)
        if self._events is not None:
            self._events.removed(name)
        return block

    def check(self) -> None:
        """Raises AssertionError when the books do not balance; used by tests."""
        held = {block for block, count in enumerate(self._references) if count}
        free, cached = set(self._free), set(self._evictable)
        assert len(self._free) == len(free), "a block is free twice"
        assert not held & free, "a held block is free"
        assert not (held | free) & cached, "a cached block is held or free"
        assert len(held) + len(free) + len(cached) == self.blocks, "a block is lost"
        assert 0 <= self.reserved <= self.free, "more is promised than there is"
        assert set(self._by_key.values()) == set(self._key_of) == set(self._name_of), "names differ"
