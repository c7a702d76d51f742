"""Evidence of rollouts: adds up over workers, whatever comes twice, late or from an earlier run."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from model_registry.config import RegistryConfig
from model_registry.rollout_evidence.evidence import Evidence, Ratios, together
from model_registry.rollout_evidence.keys import CATALOGUE, Keys
from model_registry.rollout_evidence.store import EvidenceStore


def told(epoch: int, failed: int, of: int, ratio: float = 1.0) -> Evidence:
    evidence = Evidence(epoch, requests=of)
    evidence.skipped["no_room"] = failed
    for number in range(of):
        evidence.candidate.errors.add(number < failed)
        evidence.step(2).pace.add(ratio)
    return evidence


@pytest.fixture
def evidence(redis_client: Redis, config: RegistryConfig) -> EvidenceStore:
    return EvidenceStore.of(redis_client, config)


async def test_reports_add_up_and_take_the_place_of_earlier_ones(
    evidence: EvidenceStore,
) -> None:
    assert (await evidence.gather("r", 5)).age_s is None
    for worker, failed, of in (("w1", 1, 10), ("w2", 2, 20), ("w1", 3, 30), ("w1", 3, 30)):
        assert await evidence.report("r", worker, told(5, failed, of, 1.5))
    found = await evidence.gather("r", 5)
    errors = found.evidence.candidate.errors
    assert (errors.found, errors.of, found.evidence.requests, found.workers) == (5, 50, 50, 2)
    assert found.evidence.skipped == {"no_room": 5}
    assert found.evidence.step(2).pace.quantile(0.5) == pytest.approx(1.5, rel=0.01)
    assert found.age_s is not None
    assert found.age_s < 5


async def test_an_earlier_run_neither_counts_nor_comes_back(evidence: EvidenceStore) -> None:
    await evidence.report("r", "old", told(5, 1, 10))
    await evidence.report("r", "new", told(6, 0, 4))
    assert not await evidence.report("r", "late", told(5, 9, 9))
    assert (await evidence.gather("r", 6)).evidence.candidate.errors.of == 4
    assert (await evidence.gather("r", 5)).age_s is None


async def test_a_report_of_another_release_stops_nothing(
    evidence: EvidenceStore, redis_client: Redis
) -> None:
    await evidence.report("r", "w1", told(5, 1, 10))
    for worker, document in (("w2", '5 5 {"requests": "many"}'), ("w3", "5 5 [1, 2]")):
        await redis_client.hset(Keys("test").evidence("r"), worker, document)
    found = await evidence.gather("r", 5)
    assert (found.evidence.requests, found.workers) == (10, 1)


async def test_every_key_is_in_the_catalogue_and_lapses(evidence: EvidenceStore, redis_client: Redis) -> None:
    await evidence.report("r", "w", told(1, 0, 1))
    (key,) = [key async for key in redis_client.scan_iter()]
    (row,) = CATALOGUE
    assert key == Keys("test").evidence("r")
    assert key.endswith(row.suffix.replace("<rollout>", "r"))
    assert await redis_client.type(key) == row.type
    assert 0 < await redis_client.ttl(key) <= 7 * 86_400


@given(st.lists(st.floats(0.05, 20), min_size=1, max_size=60), st.floats(0.05, 2))
def test_ratios_are_counted_to_the_hundredth(values: list[float], excess: float) -> None:
    ratios = Ratios()
    for value in values:
        ratios.add(value)
    surely = sum(value > (1 + excess) * 1.011 for value in values)
    perhaps = sum(value > (1 + excess) / 1.011 for value in values)
    assert surely <= ratios.above(excess) <= perhaps
    assert ratios.count == len(values)
    assert ratios.above(excess) + ratios.below(excess) <= len(values)


def test_what_has_no_ratio_is_left_out() -> None:
    ratios = Ratios()
    for value in (0.0, -1.0, float("inf"), float("nan")):
        ratios.add(value)
    assert (ratios.count, ratios.quantile(0.5)) == (0, None)


def test_the_sum_is_of_one_run() -> None:
    whole = together(2, [told(2, 1, 3), told(1, 5, 5), told(2, 0, 4)])
    assert (whole.candidate.errors.of, whole.candidate.errors.found) == (7, 1)
