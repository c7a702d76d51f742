"""The books of the KV cache balance, whatever happens."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.engine.kv_blocks import ROOT, BlockPool, NoFreeBlockError

SIZE = 2
BLOCKS = 6


def fill(pool: BlockPool, tokens: list[int]) -> list[int]:
    """Holds blocks for `tokens` as a request would: match, allocate, name what is full."""
    table = pool.match(tokens)
    pool.acquire(table)
    name = pool.name_of(table[-1]) if table else ROOT
    for at in range(len(table), pool.blocks_for(len(tokens))):
        table.append(pool.allocate())
        part = tokens[at * SIZE : (at + 1) * SIZE]
        if len(part) == SIZE:
            name = pool.name(name, table[-1], part)
    return table


def test_a_match_is_the_longest_prefix_of_full_blocks_with_a_token_to_spare() -> None:
    pool = BlockPool(BLOCKS, SIZE, reuse=True)
    table = fill(pool, [1, 2, 3, 4, 5])
    assert pool.match([1, 2, 3, 4, 9, 9]) == table[:2]
    assert pool.match([1, 2, 3, 4]) == table[:1]
    assert pool.match([1, 2, 9, 9, 9]) == table[:1]
    assert pool.match([3, 4, 5]) == []


def test_equal_blocks_under_different_parents_are_different() -> None:
    pool = BlockPool(BLOCKS, SIZE, reuse=True)
    fill(pool, [1, 2, 7, 7, 0])
    assert len(pool.match([3, 4, 7, 7, 0])) == 0


def test_tokens_with_equal_hashes_do_not_match() -> None:
    """-1 and -2 share a hash in CPython; only equal tokens may match."""
    pool = BlockPool(BLOCKS, SIZE, reuse=True)
    assert hash((-1, 5)) == hash((-2, 5))
    fill(pool, [-1, 5, 0])
    assert pool.match([-2, 5, 0]) == []


def test_the_least_recently_released_goes_first_and_children_before_parents() -> None:
    pool = BlockPool(4, SIZE, reuse=True)
    old = fill(pool, [1, 2, 3, 4])
    pool.release(old)
    new = fill(pool, [5, 6, 7, 8])
    pool.release(new)
    pool.allocate()
    assert pool.match([1, 2, 3, 4, 0]) == old[:1]
    assert pool.match([5, 6, 7, 8, 0]) == new
    pool.check()


def test_promised_blocks_are_not_given_to_others() -> None:
    pool = BlockPool(2, SIZE, reuse=True)
    pool.reserved = 2
    with pytest.raises(NoFreeBlockError):
        pool.allocate()
    pool.allocate(reserved=True)
    assert pool.reserved == 1
    assert pool.available == 0
    pool.check()


def test_without_reuse_nothing_is_cached() -> None:
    pool = BlockPool(BLOCKS, SIZE, reuse=False)
    pool.release(fill(pool, [1, 2, 3, 4]))
    assert (pool.cached, pool.free, pool.match([1, 2, 3, 4, 5])) == (0, BLOCKS, [])


prompts = st.lists(st.integers(0, 1), min_size=1, max_size=2 * BLOCKS)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(prompts, st.integers(0, 5)), max_size=40))
def test_no_sequence_of_requests_loses_a_block(actions: list[list[int] | int]) -> None:
    """A list starts a request with that prompt, a number ends the n-th running one."""
    pool = BlockPool(BLOCKS, SIZE, reuse=True)
    running: list[tuple[list[int], list[int]]] = []
    for action in actions:
        if isinstance(action, int):
            if running:
                pool.release(running.pop(action % len(running))[1])
        elif pool.missing(pool.match(action), pool.blocks_for(len(action))) <= pool.available:
            running.append((action, fill(pool, action)))
        pool.check()
        assert pool.used == len({block for _, table in running for block in table})
    for _, table in running:
        pool.release(table)
    pool.check()
    assert pool.used == 0
    assert pool.free == BLOCKS
