"""What follows from an engine's KV events, against an engine that is modelled block by block."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.kv_events import Created, KvEvent, Removed, Stored, StoredBlock, Token, Updated
from router.block_hashes import Chain, block_hashes, extended
from router.engine_blocks import EngineBlocks, packed, unpacked

OURS = 64


@pytest.mark.parametrize(
    ("size", "ours"), [(1, 1), (1, 3), (3, 3), (3, 9), (6, 3), (2, 6), (16, 16), (16, 64), (64, 16)]
)
@given(st.lists(st.integers(0, 5), max_size=8), st.integers(0, 2**32))
def test_a_sequence_hashed_piece_by_piece_has_the_hashes_of_the_whole(
    size: int, ours: int, counts: list[int], seed: int
) -> None:
    """Wherever the pieces end, whatever the size of the engine's blocks."""
    random, chain, found, whole = Random(seed), Chain(), list[int](), list[int]()
    for count in counts:
        ids = [random.randrange(2**32) for _ in range(count * size)]
        whole += ids
        for end, blocks in extended(chain, ids, size, ours):
            chain = end
            found += blocks
            assert found == list(block_hashes(whole[: chain.tokens], ours))
    assert chain.tokens == len(whole)


def test_sizes_that_do_not_fit_into_each_other_are_refused() -> None:
    for size in (48, 1):
        with pytest.raises(ValueError, match="no parts or multiples"):
            extended(Chain(), [1] * 48, size, 64)


class Teller:
    """An engine with blocks of `size` tokens that numbers what it tells."""

    def __init__(self, size: int = 32, rank: int | None = None, window: int = 4096) -> None:
        self.size, self.rank, self.window = size, rank, window
        self.next_id = 0

    def event(self, data: Created | Stored | Removed | Updated, window: int | None = None) -> KvEvent:
        event = KvEvent(self.next_id, data, self.window if window is None else window, self.rank)
        self.next_id += 1
        return event

    def created(self) -> KvEvent:
        return self.event(Created())

    def stored(self, tokens: Sequence[int], first: int = 0, count: int | None = None) -> KvEvent:
        """The prompt's blocks from `first` on, named by what they and those before them hold."""
        last = len(tokens) // self.size if count is None else first + count
        blocks = [
            StoredBlock(self.name(tokens, n), [Token(t) for t in tokens[n * self.size : (n + 1) * self.size]])
            for n in range(first, last)
        ]
        return self.event(Stored(self.name(tokens, first - 1) if first else None, blocks))

    def removed(self, tokens: Sequence[int], *which: int) -> KvEvent:
        return self.event(Removed([self.name(tokens, n) for n in which]))

    def name(self, tokens: Sequence[int], block: int) -> int:
        return hash((self.rank, tuple(tokens[: (block + 1) * self.size]))) & (2**64 - 1)


PROMPT = list(range(500, 500 + 1024))
HASHES = block_hashes(PROMPT, OURS)


@pytest.mark.parametrize("size", [16, 32, 64, 128])
def test_blocks_of_any_size_become_ours(size: int) -> None:
    """And go with the engine's blocks they need."""
    engine, known = Teller(size), EngineBlocks(OURS)
    known.read([engine.created(), engine.stored(PROMPT, count=1), engine.stored(PROMPT, first=1)])
    assert known.held(HASHES) == len(HASHES) == len(known)
    assert known.held(block_hashes([1, *PROMPT[1:]], OURS)) == 0
    assert known.is_whole
    last = len(PROMPT) // size - 1
    known.read([engine.removed(PROMPT, last)])
    assert known.held(HASHES) == len(HASHES) - max(1, size // OURS)
    known.read([engine.removed(PROMPT, *range(last - 1, -1, -1))])
    assert known.held(HASHES) == len(known) == 0


def test_a_gap_forgets_and_what_is_not_known_may_be_there_until_the_cache_is_made_anew() -> None:
    engine, known = Teller(), EngineBlocks(OURS)
    known.read([engine.created(), engine.stored(PROMPT)])
    engine.event(Updated())  # nobody hears this one
    known.read([engine.stored([7] * 128)])
    assert (known.gaps, known.is_whole) == (1, False)
    assert known.held(HASHES) == 0
    assert known.held(block_hashes([7] * 128, OURS)) == 2
    again = Teller()
    known.read([again.created(), again.stored(PROMPT)])
    assert known.is_whole
    assert known.held(HASHES) == len(HASHES)
    assert known.held(block_hashes([7] * 128, OURS)) == 0


def test_who_comes_late_knows_what_is_told_from_then_on() -> None:
    """Blocks behind one that was told before cannot be placed."""
    engine, known = Teller(), EngineBlocks(OURS)
    engine.created()
    engine.stored(PROMPT, count=4)
    known.read([engine.stored(PROMPT, first=4), engine.stored([7] * 64)])
    assert not known.is_whole
    assert known.gaps == 0
    assert (known.held(HASHES), known.held(block_hashes([7] * 64, OURS))) == (0, 1)


def test_a_block_is_there_as_long_as_any_rank_has_it() -> None:
    """Each rank numbers its own events, and one that starts anew takes only its own blocks away."""
    first, second, known = Teller(rank=0), Teller(rank=1), EngineBlocks(OURS)
    known.read([first.created(), second.created(), first.stored(PROMPT), second.stored(PROMPT)])
    known.read([first.removed(PROMPT, *range(31, -1, -1))])
    assert known.held(HASHES) == len(HASHES)
    known.read([Teller(rank=1).created()])
    assert known.held(HASHES) == 0
    assert known.is_whole


def test_only_layers_that_see_the_whole_prompt_count() -> None:
    engine, known = Teller(), EngineBlocks(OURS)
    narrow = engine.event(Created(), window=512)
    wide = engine.created()
    within = engine.stored([7] * 64)
    within.window_size = 512
    known.read([narrow, wide, within, engine.stored(PROMPT)])
    assert known.held(block_hashes([7] * 64, OURS)) == 0
    assert known.held(HASHES) == len(HASHES)
    assert known.is_whole


def test_what_holds_more_than_tokens_is_not_taken_for_them() -> None:
    engine, known = Teller(), EngineBlocks(OURS)
    picture = engine.stored(PROMPT)
    assert isinstance(picture.data, Stored)
    picture.data.blocks[3].tokens[5].token_extra_id = 9
    known.read([picture])
    assert known.held(HASHES) == 1


def test_others_follow_by_what_the_reader_tells() -> None:
    """Over the wire, from the beginning; what is told twice counts once; a reader's successor goes on."""
    engine, reader, other = Teller(), EngineBlocks(OURS), EngineBlocks(OURS)
    told = [
        reader.read([engine.created(), engine.stored(PROMPT)]),
        reader.read([engine.removed(PROMPT, 31)]),
    ]
    assert reader.read([]) is None
    for change in (told[0], told[1], told[1]):
        assert change is not None
        other.follow(unpacked(packed(change)))
    assert other.held(HASHES) == reader.held(HASHES) == len(HASHES) - 1
    assert other.is_whole
    other.read([engine.stored(PROMPT, first=31)])
    assert other.held(HASHES) == len(HASHES)
    assert (other.is_whole, other.gaps) == (True, 0)


def test_who_misses_a_change_forgets_until_the_cache_is_made_anew() -> None:
    engine, reader, other = Teller(), EngineBlocks(OURS), EngineBlocks(OURS)
    changes = [
        reader.read([event]) for event in (engine.created(), engine.stored(PROMPT), engine.stored([7] * 64))
    ]
    changes.append(reader.read([Teller().created()]))
    first, _, third, anew = changes
    assert first is not None
    assert third is not None
    assert anew is not None
    other.follow(first)
    other.follow(third)
    assert (other.gaps, other.is_whole) == (1, False)
    assert (other.held(HASHES), other.held(block_hashes([7] * 64, OURS))) == (0, 1)
    other.follow(anew)
    assert (len(other), other.is_whole) == (0, True)


@settings(max_examples=60)
@given(st.integers(0, 2**31), st.integers(1, 40))
def test_it_knows_what_the_engine_has(seed: int, steps: int) -> None:
    """Prompts with common beginnings come, ends of sequences go, in any order."""
    random, engine, known, there = Random(seed), Teller(16), EngineBlocks(32), set[tuple[int, ...]]()
    prompts = [[7] * (16 * a) + [b] * (16 * c) for a in range(4) for b in (8, 9) for c in range(1, 4)]
    events = [engine.created()]
    for _ in range(steps):
        prompt = random.choice(prompts)
        count = len(prompt) // 16
        has = sum(tuple(prompt[: 16 * (n + 1)]) in there for n in range(count))
        if random.random() < 0.6 and has < count:
            events.append(engine.stored(prompt, first=has))
            there |= {tuple(prompt[: 16 * (n + 1)]) for n in range(has, count)}
        elif has:
            behind = [one for one in there if one[: 16 * has] == tuple(prompt[: 16 * has])]
            leaf = max(behind, key=len)
            events.append(engine.removed(leaf, len(leaf) // 16 - 1))
            there.discard(leaf)
    known.read(events)
    for prompt in prompts:
        has = sum(tuple(prompt[: 16 * (n + 1)]) in there for n in range(len(prompt) // 16))
        assert known.held(block_hashes(prompt, 32)) == has // 2
