"""The engine model: step times, in-flight batching, and a cache that never evicts what runs."""

from __future__ import annotations

from datetime import date
from math import inf

import pytest

from model_registry.cards import GoodputCard
from router.replay.block_cache import BlockCache
from router.replay.engine import Engine, EngineCard, Job, engine_card
from router.replay.workload import Request

CARD = EngineCard()


def drained(engine: Engine, arrivals: list[tuple[float, Job]]) -> list[tuple[float, Job, bool]]:
    """Everything that happens until the engine idles."""
    told: list[tuple[float, Job, bool]] = []
    while arrivals or engine.next_s < inf:
        if arrivals and arrivals[0][0] <= engine.next_s:
            at_s, job = arrivals.pop(0)
            engine.submit(job, at_s)
        else:
            now_s = engine.next_s
            told += [(now_s, job, ended) for job, ended in engine.advance()]
    return told


def job(prompt: int, output: int, blocks: tuple[int, ...] = ()) -> Job:
    return Job(Request(0.0, prompt, output, blocks), 512)


def engine(card: EngineCard = CARD) -> Engine:
    return Engine("e", card, BlockCache(card.kv_tokens // 512))


def test_the_default_card_takes_the_measured_time_for_a_prompt() -> None:
    """8,192 tokens of a 32B model on two H100 take 0.40 s."""
    assert pytest.approx(0.40, abs=0.005) == CARD.prefill_s(8192)


def test_a_request_alone_takes_its_prefill_and_its_steps() -> None:
    """The first token comes with the prompt's last chunk; each further one takes one step."""
    alone = job(10_000, 3)
    drained(engine(), [(1.0, alone)])
    step_s = [CARD.step_s(1, 0, 10_001), CARD.step_s(1, 0, 10_002)]
    assert pytest.approx(1.0 + CARD.prefill_s(10_000)) == alone.first_s
    assert pytest.approx(alone.first_s + sum(step_s)) == alone.last_s


def test_a_leap_over_steps_ends_with_the_step_an_arrival_falls_into() -> None:
    """The newcomer waits for that step only, and what decodes loses no token by it."""
    long, late = job(512, 1000), job(512, 1)
    told = drained(engine(), [(0.0, long), (2.0, late)])
    step_s = CARD.step_s(1, 0, 700)
    prefill_s = CARD.step_s(512 + 1, 512 * 256, 700)
    assert 2.0 < late.first_s <= 2.0 + step_s + prefill_s + 1e-3
    steps = [CARD.step_s(1, 0, 513 + n) for n in range(999)]
    extra = prefill_s - step_s
    assert pytest.approx(long.first_s + sum(steps) + extra, abs=1e-3) == long.last_s
    assert [late, late, long] == [one for _, one, _ in told[1:]]


def test_a_second_prompt_reuses_what_the_first_one_left() -> None:
    """All but the last token at most: the first token of an answer has to be computed."""
    first, second = job(1024, 2, (1, 2)), job(1024, 2, (1, 2))
    drained(engine(), [(0.0, first), (10.0, second)])
    assert (first.hit_tokens, second.hit_tokens) == (0, 1023)
    assert second.first_s - 10.0 < first.first_s / 2


def test_a_request_without_room_waits_until_another_ends() -> None:
    """Nothing that runs is evicted."""
    small = EngineCard(kv_tokens=4096)
    first, second = job(2048, 500), job(2048, 10)
    drained(engine(small), [(0.0, first), (0.1, second)])
    assert second.first_s > first.last_s


def test_pinned_blocks_stay_and_idle_ones_go_oldest_first() -> None:
    """The end of a prompt goes before its beginning."""
    cache = BlockCache(4)
    assert cache.take((1, 2), 0) == 0
    assert cache.take((8,), 0) == 0
    cache.give_back((1, 2), 0)
    assert cache.take((9,), 1) == 0
    assert (cache.held((1, 2)), cache.held((2,))) == (1, 0)
    assert cache.held((8,)) == 1
    assert cache.take((5, 6), 0) is None
    assert cache.held((1,)) == 1


def test_slots_bound_the_batch() -> None:
    """The engine's own queue keeps the rest."""
    two = engine(EngineCard(slots=2))
    for _ in range(3):
        two.submit(job(100, 50), 0.0)
    two.advance()
    assert (two.running, len(two.waiting)) == (2, 1)


def test_an_engine_by_a_goodput_card_keeps_its_lines() -> None:
    """A prompt takes its tokens at the card's rate, and a batch's step what the card says of it."""
    goodput = GoodputCard(
        source="measured",
        gpu_class="h100-sxm",
        date=date(2026, 11, 28),
        prefill_tokens_per_s=50_000,
        overhead_s=0.02,
        step_s=0.006,
        step_per_request_s=0.0005,
        slots=4,
        kv_tokens=100_000,
    )
    card = engine_card(goodput)
    assert (card.slots, card.kv_tokens, card.chunk_tokens) == (4, 100_000, CARD.chunk_tokens)
    assert card.prefill_s(8192) == pytest.approx(8192 / 50_000)
    assert card.step_s(3, 0, 5_000, 3) == pytest.approx(0.0055 + 3 * 0.0005)
    house = engine(card)
    jobs = [job(100, 101) for _ in range(3)]
    drained(house, [(0.0, one) for one in jobs])
    assert jobs[2].last_s - jobs[2].first_s == pytest.approx(100 * 0.007, rel=0.02)
