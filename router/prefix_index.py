"""PrefixIndex: what of a prompt each endpoint is believed to have in its KV cache.

A belief from this process's own dispatches, corrected by what engines report as reused. A radix tree over
block hashes: a node is a run of blocks, and since a hash stands for all blocks before it too, comparing a
whole run is comparing its last. Work goes with the tree's branches, not with blocks. Tenants that may not
share a cache have trees of their own; the room of an endpoint is one for all of them. One index per model,
owned by one event loop.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from math import inf
from types import MappingProxyType
from typing import NamedTuple

_SETTLED_S = 5.0
"""An engine that reports less than believed says something of its cache only if what was believed is older:
the keys and values of a prompt that is still being computed are not there for others yet."""
_GROWTH = 1.02
_ALWAYS: Mapping[str, float] = MappingProxyType({})


class Belief(NamedTuple):
    """What was believed of an endpoint when a prompt was sent there."""

    blocks: int = 0
    """Of the prompt, cached."""
    used_s: float = 0.0
    """When the last of them was used before."""


class _Node:
    """A run of blocks, and when each endpoint that has it whole used it last."""

    __slots__ = ("children", "depths", "holders", "parent", "run", "since_s")

    def __init__(self, run: Sequence[int], parent: _Node | None) -> None:
        self.run = run
        self.parent = parent
        self.children: dict[int, _Node] = {}
        self.holders: dict[str, float] = {}
        self.since_s = inf
        """None of those times is before it."""
        self.depths: dict[str, int] | None = None
        """Blocks up to the end of this run, by holder; None: another has come or gone, or the run was cut."""

    def held(self, depth: int, since_s: float) -> dict[str, int]:
        """Who has it and has used it since; `depth`: blocks up to its end."""
        if self.since_s < since_s:
            self.since_s = min(self.holders.values(), default=inf)
        if self.since_s < since_s:
            return {endpoint: depth for endpoint, used_s in self.holders.items() if used_s >= since_s}
        if self.depths is None:
            self.depths = dict.fromkeys(self.holders, depth)
        return self.depths


class _Room:
    """One endpoint's cache: its nodes, least recently used first, a node's children before it."""

    __slots__ = ("blocks", "bound", "nodes")

    def __init__(self, bound: int) -> None:
        self.nodes: OrderedDict[_Node, None] = OrderedDict()
        self.blocks = 0
        self.bound = bound


class PrefixIndex:
    """`blocks` are hashes from `router.block_hashes`; times are of the clock that decisions use."""

    def __init__(self, bound_blocks: int, ttl_s: float) -> None:
        """`bound_blocks`: what any endpoint's cache holds at most; less, where reports tell so."""
        self._bound_blocks = bound_blocks
        self._ttl_s = ttl_s
        self._roots: dict[str, _Node] = {}
        self._rooms: dict[str, _Room] = {}

    def held(
        self,
        isolation: str,
        blocks: Sequence[int],
        now_s: float,
        only_since_s: Mapping[str, float] = _ALWAYS,
    ) -> dict[str, int]:
        """How many of the prompt's first blocks each endpoint has; those that have none are left out.

        `only_since_s`: endpoints of which only what was used since then counts, as they tell themselves what
        else they have.
        """
        path, part, whole = self._walk(isolation, blocks)
        found: dict[str, int] = {}
        since_s, depth = now_s - self._ttl_s, 0
        for node in path:  # who has a run has what is before it, too: the later one counts
            depth += len(node.run)
            found.update(node.held(depth, since_s))
        if part:
            child = (path[-1] if path else self._roots[isolation]).children[blocks[whole]]
            path.append(child)
            found.update(dict.fromkeys(child.held(whole + len(child.run), since_s), whole + part))
        for endpoint, only_s in only_since_s.items():
            if endpoint in found:
                found[endpoint] = self._depth(endpoint, path, max(only_s, since_s), whole + part)
        return {endpoint: depth for endpoint, depth in found.items() if depth} if only_since_s else found

    def insert(self, endpoint: str, isolation: str, blocks: Sequence[int], now_s: float) -> Belief:
        """The prompt goes to `endpoint`, which will have all of it; what it was believed to have before."""
        room = self._room(endpoint)
        path, part, depth = self._walk(isolation, blocks)
        parent = path[-1] if path else self._root(isolation)
        if part:
            parent = self._split(parent.children[blocks[depth]], part, path)
            path.append(parent)
            depth += part
        belief = self._belief(endpoint, path, now_s)
        if depth < len(blocks):
            leaf = _Node(blocks[depth:], parent)
            parent.children[leaf.run[0]] = leaf
            path.append(leaf)
        for node in reversed(path):
            if endpoint not in node.holders:
                room.blocks += len(node.run)
                node.depths = None
            node.holders[endpoint] = now_s
            node.since_s = min(node.since_s, now_s)
            room.nodes[node] = None
            room.nodes.move_to_end(node)
        self._trim(endpoint, room, now_s - self._ttl_s)
        return belief

    def correct(self, endpoint: str, belief: Belief, sent_s: float, reported_blocks: int) -> None:
        """The engine told how many blocks of a prompt that was sent at `sent_s` it had.

        Where that is less than believed, what was used no later than the missing is gone as well, for caches
        drop the least recently used first; and the cache is smaller than was thought.
        """
        room = self._rooms.get(endpoint)
        if room is None:
            return
        if reported_blocks >= belief.blocks - 1:  # the last block is computed again, for the first token
            if belief.blocks > 0 and room.blocks >= 0.9 * room.bound:
                room.bound = min(self._bound_blocks, int(room.bound * _GROWTH) + 1)
            return
        if sent_s - belief.used_s < _SETTLED_S:
            return
        while room.nodes and next(iter(room.nodes)).holders[endpoint] <= belief.used_s:
            self._drop(endpoint, room)
        room.bound = min(room.bound, max(room.blocks, belief.blocks))

    def forget(self, endpoint: str) -> None:
        """Its cache is empty: it was away, or is another one by now."""
        if (room := self._rooms.pop(endpoint, None)) is not None:
            while room.nodes:
                self._drop(endpoint, room)

    def retain(self, endpoints: Collection[str]) -> None:
        """Forget all other endpoints."""
        for endpoint in self._rooms.keys() - set(endpoints):
            self.forget(endpoint)

    def blocks_of(self, endpoint: str) -> int:
        """Blocks that the endpoint is believed to have."""
        room = self._rooms.get(endpoint)
        return 0 if room is None else room.blocks

    def _walk(self, isolation: str, blocks: Sequence[int]) -> tuple[list[_Node], int, int]:
        """The nodes that the prompt has whole, how much of the next one, and the blocks before that."""
        path: list[_Node] = []
        node = self._roots.get(isolation)
        at, count = 0, len(blocks)
        while node is not None and at < count:
            node = node.children.get(blocks[at])
            if node is None:
                break
            run = node.run
            end = at + len(run)
            if end > count or blocks[end - 1] != run[-1]:
                return path, _common(run, blocks, at), at
            path.append(node)
            at = end
        return path, 0, at

    def _split(self, node: _Node, at: int, ancestors: Sequence[_Node]) -> _Node:
        """Cut a run in two; the first part, which is new.

        It counts as just used by all who have it, as do those before it, so that children stay older.
        """
        assert node.parent is not None
        upper = _Node(node.run[:at], node.parent)
        node.parent.children[upper.run[0]] = upper
        node.run, node.parent = node.run[at:], upper
        upper.children[node.run[0]] = node
        upper.holders, upper.since_s = dict(node.holders), node.since_s
        for endpoint in upper.holders:
            nodes = self._rooms[endpoint].nodes
            nodes[upper] = None
            for ancestor in reversed(ancestors):
                nodes.move_to_end(ancestor)
        return upper

    def _depth(self, endpoint: str, path: Sequence[_Node], since_s: float, most: int) -> int:
        """Blocks up to the last run that the endpoint used since then."""
        depth = found = 0
        for node in path:
            depth += len(node.run)
            if node.holders.get(endpoint, -inf) >= since_s:
                found = depth
        return min(found, most)

    def _belief(self, endpoint: str, path: Sequence[_Node], now_s: float) -> Belief:
        blocks, used_s = 0, 0.0
        for node in path:
            used = node.holders.get(endpoint)
            if used is None or used < now_s - self._ttl_s:
                break
            blocks, used_s = blocks + len(node.run), used
        return Belief(blocks, used_s)

    def _trim(self, endpoint: str, room: _Room, since_s: float) -> None:
        """Keep the bound and the time; a run that nobody else has gives up its end only."""
        while room.nodes:
            node = next(iter(room.nodes))
            excess = room.blocks - room.bound
            expired = node.holders[endpoint] < since_s
            if excess <= 0 and not expired:
                return
            if not expired and excess < len(node.run) and len(node.holders) == 1 and not node.children:
                node.run, node.depths = node.run[: len(node.run) - excess], None
                room.blocks -= excess
                return
            self._drop(endpoint, room)

    def _drop(self, endpoint: str, room: _Room) -> None:
        """The least recently used node is no longer there; nodes that nobody has leave the tree."""
        dropped, _ = room.nodes.popitem(last=False)
        room.blocks -= len(dropped.run)
        del dropped.holders[endpoint]
        dropped.depths = None
        node: _Node = dropped
        while not node.holders and not node.children and node.parent is not None:
            del node.parent.children[node.run[0]]
            node = node.parent

    def _root(self, isolation: str) -> _Node:
        root = self._roots.get(isolation)
        if root is None:
            root = self._roots[isolation] = _Node((), None)
        return root

    def _room(self, endpoint: str) -> _Room:
        room = self._rooms.get(endpoint)
        if room is None:
            room = self._rooms[endpoint] = _Room(self._bound_blocks)
        return room


def _common(run: Sequence[int], blocks: Sequence[int], at: int) -> int:
    """How many blocks of `run` the prompt has from `at` on; the first is known to be one."""
    low, high = 1, min(len(run), len(blocks) - at)
    while low < high:
        middle = (low + high + 1) // 2
        if run[middle - 1] == blocks[at + middle - 1]:
            low = middle
        else:
            high = middle - 1
    return low
