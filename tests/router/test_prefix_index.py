"""The prefix index and the hashes it is built on, against a model that keeps every block by itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.block_hashes import block_hashes, compact
from router.prefix_index import Belief, PrefixIndex


@pytest.mark.parametrize("block_tokens", [1, 3, 16, 64])
def test_hashes_agree_as_far_as_prompts_do(block_tokens: int) -> None:
    """To the whole block; whether they come from a list or an array; whatever differs, order included."""
    ids = list(range(1000, 1000 + 5 * block_tokens + block_tokens // 2))
    hashes = block_hashes(ids, block_tokens)
    assert len(hashes) == len(ids) // block_tokens
    assert len(set(hashes)) == len(hashes)
    assert hashes == block_hashes(compact(ids), block_tokens)
    assert hashes == block_hashes(np.array(ids, dtype=np.int64), block_tokens)
    assert hashes[:3] == block_hashes(ids[: 3 * block_tokens], block_tokens)
    for place in range(len(hashes) * block_tokens):
        other = [*ids[:place], ids[place] + 1, *ids[place + 1 :]]
        same = [a == b for a, b in zip(hashes, block_hashes(other, block_tokens), strict=True)]
        assert same == [n < place // block_tokens for n in range(len(hashes))]
    swapped = ids[block_tokens : 2 * block_tokens] + ids[:block_tokens] + ids[2 * block_tokens :]
    assert not set(block_hashes(swapped, block_tokens)) & set(hashes)
    assert not set(block_hashes(ids, block_tokens, seed=7)) & set(hashes)


def test_a_prompt_without_a_whole_block_has_no_hash() -> None:
    assert len(block_hashes([], 16)) == len(block_hashes([1] * 15, 16)) == 0


class ByBlock:
    """The same belief, block by block and endpoint by endpoint, without bounds or time."""

    def __init__(self) -> None:
        self.known: dict[str, set[tuple[str, int]]] = {}

    def held(self, isolation: str, blocks: Sequence[int]) -> dict[str, int]:
        found = {}
        for endpoint, known in self.known.items():
            count = 0
            while count < len(blocks) and (isolation, blocks[count]) in known:
                count += 1
            if count:
                found[endpoint] = count
        return found


def chained(tokens: list[int]) -> Sequence[int]:
    return block_hashes(tokens, 1)


PROMPTS = st.lists(st.integers(0, 2), max_size=8).map(chained)


@pytest.mark.parametrize("seed", [0, 7])
def test_few_blocks_have_the_hashes_that_many_begin_with(seed: int) -> None:
    """They are computed in another way."""
    ids = [(7919 * n) % 130_000 for n in range(64 * 40)]
    for count in (1, 15, 16, 17, 39):
        assert block_hashes(ids, 64, seed)[:count] == block_hashes(ids[: 64 * count], 64, seed)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["t", "u"]), PROMPTS), max_size=30))
@settings(max_examples=200)
def test_what_is_held_is_what_was_sent(sent: list[tuple[str, str, Sequence[int]]]) -> None:
    """For every endpoint, tenant and prompt, however runs were cut."""
    index, model = PrefixIndex(10**6, 100.0), ByBlock()
    for now_s, (endpoint, isolation, blocks) in enumerate(sent):
        expected = model.held(isolation, blocks)
        assert index.held(isolation, blocks, now_s) == expected
        assert index.insert(endpoint, isolation, blocks, now_s).blocks == expected.get(endpoint, 0)
        model.known.setdefault(endpoint, set()).update((isolation, block) for block in blocks)
    for endpoint, known in model.known.items():
        assert index.blocks_of(endpoint) == len(known)
        index.forget(endpoint)
        assert index.blocks_of(endpoint) == 0
    assert all(not index.held(isolation, blocks, 0) for _, isolation, blocks in sent)


@given(
    st.lists(st.tuples(st.sampled_from("abc"), PROMPTS, st.floats(0, 3)), max_size=30),
    st.dictionaries(st.sampled_from("abc"), st.floats(0, 40)),
)
@settings(max_examples=200)
def test_only_what_was_used_lately_is_held(
    sent: list[tuple[str, Sequence[int], float]], only_since_s: dict[str, float]
) -> None:
    """A block is as old as the last prompt that had it there; a prompt is held up to the last that counts."""
    index, used, now_s = PrefixIndex(10**6, 10.0), dict[tuple[str, int], float](), 0.0
    for endpoint, blocks, pause_s in sent:
        now_s += pause_s
        for since in ({}, only_since_s):
            expected = {}
            for name in "abc":
                least_s = max(now_s - 10.0, since.get(name, 0.0))
                ages = [used.get((name, block), -1.0) >= least_s for block in blocks]
                if (count := (*ages, False).index(False)) > 0:
                    expected[name] = count
            assert index.held("", blocks, now_s, since) == expected
        index.insert(endpoint, "", blocks, now_s)
        used.update({(endpoint, block): now_s for block in blocks})
        used = {key: at_s for key, at_s in used.items() if key[0] != endpoint or at_s >= now_s - 10.0}


@given(st.lists(st.tuples(st.sampled_from("ab"), PROMPTS), min_size=1, max_size=40), st.integers(8, 20))
@settings(max_examples=200)
def test_no_endpoint_is_believed_to_hold_more_than_its_bound(
    sent: list[tuple[str, Sequence[int]]], bound: int
) -> None:
    """What was sent last is always there; the count is that of the tree."""
    index = PrefixIndex(bound, 100.0)
    for now_s, (endpoint, blocks) in enumerate(sent):
        index.insert(endpoint, "", blocks, now_s)
        assert index.blocks_of(endpoint) <= bound
        assert index.held("", blocks, now_s).get(endpoint, 0) == len(blocks)
        everywhere = {name for _, all_of_it in sent for name in index.held("", all_of_it, now_s)}
        assert all(index.blocks_of(name) > 0 for name in everywhere)


def test_the_least_recently_used_goes_first_and_from_its_end() -> None:
    index = PrefixIndex(10, 100.0)
    old, new, newest = (chained([start] * 4) for start in (1, 2, 3))
    index.insert("a", "", old, 0)
    index.insert("a", "", new, 1)
    index.insert("a", "", old, 2)
    index.insert("a", "", newest, 3)
    assert [index.held("", blocks, 3).get("a", 0) for blocks in (old, new, newest)] == [4, 2, 4]


def test_beliefs_end_with_their_time() -> None:
    index = PrefixIndex(10, 5.0)
    blocks = chained([1, 2, 3])
    index.insert("a", "", blocks, 0)
    index.insert("a", "", blocks[:1], 4)
    assert index.held("", blocks, 5) == {"a": 3}
    assert index.held("", blocks, 6) == {"a": 1}
    index.insert("a", "", chained([9]), 20)
    assert index.blocks_of("a") == 1


def test_a_report_of_less_drops_all_that_is_as_old() -> None:
    """And the endpoint's bound with it; a report of what was believed changes nothing."""
    index = PrefixIndex(1000, 1000.0)
    older, old, young = (chained([start] * 10) for start in (1, 2, 3))
    for now_s, blocks in ((0, older), (10, old), (20, young)):
        index.insert("a", "", blocks, now_s)
    belief = index.insert("a", "", old, 30)
    assert belief == Belief(10, 10)
    index.correct("a", belief, 30, 9)
    assert index.blocks_of("a") == 30
    index.correct("a", belief, 30, 0)
    assert [index.held("", blocks, 31).get("a", 0) for blocks in (older, old, young)] == [0, 10, 10]
    index.insert("a", "", chained([4] * 10), 40)
    assert index.blocks_of("a") == 20, "its cache is smaller than was thought"
    index.correct("never-seen", belief, 30, 0)


def test_a_report_on_a_prompt_that_was_still_being_computed_says_nothing() -> None:
    index = PrefixIndex(1000, 1000.0)
    blocks = chained([1] * 10)
    index.insert("a", "", blocks, 0)
    index.correct("a", index.insert("a", "", blocks, 1), 1, 0)
    assert index.held("", blocks, 2) == {"a": 10}


def test_endpoints_that_are_gone_are_forgotten() -> None:
    index = PrefixIndex(1000, 1000.0)
    blocks = chained([1] * 10)
    for name in "ab":
        index.insert(name, "", blocks, 0)
    index.retain({"b"})
    assert index.held("", blocks, 0) == {"b": 10}


@given(st.lists(st.tuples(st.sampled_from("abc"), PROMPTS), max_size=30), st.integers(2, 12))
@settings(max_examples=200)
def test_what_was_looked_at_before_makes_no_difference(
    sent: list[tuple[str, Sequence[int]]], bound: int
) -> None:
    """Whoever came, went, or gave up the end of a run since then."""
    looked_at, other = PrefixIndex(bound, 100.0), PrefixIndex(bound, 100.0)
    for now_s, (endpoint, blocks) in enumerate(sent):
        for index in (looked_at, other):
            index.insert(endpoint, "", blocks, now_s)
        for _, each in sent:
            looked_at.held("", each, now_s)
    for _, each in sent:
        assert looked_at.held("", each, len(sent)) == other.held("", each, len(sent))
