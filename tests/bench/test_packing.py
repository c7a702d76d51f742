"""The packing replay in short: an afternoon of a catalogue on few GPUs, beside LRU and the clairvoyant."""

from __future__ import annotations

import numpy as np
import pytest

from bench.replay.catalogue import Arrivals, Window, arrivals, windows
from bench.replay.packing import Card, Clairvoyance, Foreknowledge, Recency, packed
from bench.replay.packing_table import OURS, WAITS, Row, foresight, result
from bench.scale.asking import Outcome
from bench.scale.residency import misses, optimal_hit_rate
from controller.residency.next_use import NextUse
from controller.residency.value import absence_s


def test_ours_is_between_lru_and_the_clairvoyant_ones() -> None:
    """Bursts for 60 models by Zipf's law, six hours, 16 slots; no GPU ever holds more than its slots."""
    recorded = [Window(client, window, 1 / (client + 1), 3.0) for client in range(60) for window in range(36)]
    work, card = arrivals(recorded, range(1), 0.25 * 36 / 144, 1, anew=False), Card(gpus=2)
    lru = packed(work, card, Recency())
    ours = packed(work, card, NextUse(), ahead=True)
    best = packed(work, card, Clairvoyance(work))
    calm = packed(work, card, foresight(WAITS, work, card))
    assert best.cold < ours.cold < lru.cold
    assert calm.late < best.late < ours.late < lru.late
    assert max(lru.most_in_memory, ours.most_in_memory, best.most_in_memory) == card.slots


def test_who_knows_the_waits_prefers_a_burst_to_a_single_request() -> None:
    """A single request comes before a burst: by misses it counts more, by those who wait the burst does."""
    times = [0.0, *(100.0 + number for number in range(10)), 130.0, 160.0, *(161.0 + n for n in range(10))]
    models = [1, *[1] * 10, 0, 0, *[1] * 10]
    work = Arrivals(np.array(times), np.array(models), 2)
    outlook = Foreknowledge(work, 20.0)
    for _ in range(11):
        outlook.seen(115.0, "m001", 1)
    single, burst = outlook.outlook(115.0, "m000"), outlook.outlook(115.0, "m001")
    assert single.use > burst.use
    assert absence_s(single, 20.0) < absence_s(burst, 20.0)


def test_the_records_are_whole() -> None:
    """As many clients as their README says, and rates of which none is 0."""
    for name, clients in (("m_large", 134), ("deepseek_r1", 73)):
        recorded = windows(name)
        assert len({one.client for one in recorded}) == clients
        assert min(one.rate for one in recorded) > 0


def test_every_request_is_served_in_the_end_and_waits_are_counted() -> None:
    """Two models and room for one: each waits for the other to go, and for its own load."""
    work = Arrivals(np.array([0.0, 1.0, 30.0]), np.array([0, 0, 1]), 2)
    told = packed(work, Card(1, slots=1, warm_s=0), Recency())
    assert (told.requests, told.cold, told.late, told.loads) == (3, 2, 3, 2)
    assert told.unasked == 3
    assert told.worst_s == pytest.approx(21, abs=2)


@pytest.mark.parametrize("anew", [True, False])
def test_arrivals_have_the_recorded_rate(anew: bool) -> None:
    """Also of bursts, in equilibrium; those that begin anew are more, for each window begins with one."""
    recorded = [Window(client, window, 0.05, 3.0) for client in range(20) for window in range(144)]
    found = arrivals(recorded, range(1), 2.0, 1, anew=anew)
    per_s = len(found.times_s) / 86_400
    assert per_s > 2.08 if anew else abs(per_s - 2.0) < 0.1


def test_the_bar_is_of_the_most_gpus_that_a_work_is_given() -> None:
    rows = [Row("w", 6, OURS, 0.2, 0.6, 0.7, 0.1, 100), Row("w", 7, OURS, 0.1, 0.4, 0.5, 0.1, 90)]
    assert result(rows)["ok"]
    assert result(rows)["fewest_gpus"] == {"w": 7}
    assert not result(rows[:1])["ok"]


def test_the_live_campaign_counts_the_first_of_those_held_together() -> None:
    asked = [
        Outcome("a", 0, 5, cold=True),
        Outcome("a", 3, 5.1, cold=True),
        Outcome("a", 6, 6.1),
        Outcome("b", 4, 9, cold=True),
        Outcome("a", 20, 25, cold=True),
    ]
    assert misses(asked) == 3


def test_the_optimum_keeps_what_comes_next() -> None:
    """Room for two: of a, b, c, a, b the clairvoyant serves a from memory, and b too if it let c go by."""
    assert optimal_hit_rate("abcab", 2) == pytest.approx(1 / 5)
    assert optimal_hit_rate("abab", 2) == pytest.approx(2 / 4)
