"""Dispatch windows: what fits, and how the gradient finds the size of an engine that nobody stated."""

from __future__ import annotations

from collections import deque

import pytest

from router.window import Held, Limits, Window


@pytest.mark.parametrize(
    ("held", "more", "why"),
    [
        (Held(3, 0, 0), Held(1, 10, 10), None),
        (Held(4, 0, 0), Held(1, 10, 10), "slots"),
        (Held(1, 900, 0), Held(1, 101, 1), "kv"),
        (Held(1, 900, 0), Held(1, 100, 1), None),
        (Held(1, 0, 450), Held(1, 1, 51), "prefill"),
        (Held(0, 0, 0), Held(1, 5000, 5000), None),
    ],
)
def test_what_fits(held: Held, more: Held, why: str | None) -> None:
    """Slots, KV tokens and uncomputed prompt tokens; what no engine could hold is for the engine to say."""
    assert Window(Limits(4, kv_tokens=1000, prefill_tokens=500)).why_not(held, more) == why


def test_the_share_of_the_slots() -> None:
    """A window may be larger than the slots, never smaller than one request."""
    assert [Window(Limits(slots), share).limit for slots, share in ((8, 1.25), (8, 0.5), (1, 0.1))] == [
        10,
        4,
        1,
    ]


def test_a_window_keeps_its_size_while_the_engine_is_calm() -> None:
    """However the prompts differ in length: TTFT is normalised."""
    window = Window(Limits(64))
    for n in range(500):
        idle_s = (0.05, 0.4, 2.0)[n % 3]
        window.learn(1.2 * idle_s, idle_s, requests=64 if n % 2 else 10)
    assert window.limit == 64


def test_it_shrinks_while_first_tokens_are_late_and_grows_back() -> None:
    """Not below an eighth of its ceiling: a forecast may be wrong."""
    window = Window(Limits(64))
    for _ in range(20):
        window.learn(0.1, 0.1, requests=5)
    for _ in range(200):
        window.learn(3.0, 0.1, requests=window.limit)
    assert 8 <= window.limit <= 12
    for _ in range(400):
        window.learn(0.1, 0.1, requests=window.limit)
    assert window.limit == 64


def test_a_forecast_that_is_wrong_by_a_factor_does_not_shrink_it() -> None:
    """What counts is how much longer it takes than when the engine was calm."""
    window = Window(Limits(64))
    for _ in range(100):
        window.learn(0.5, 0.1, requests=5)
        window.learn(0.6, 0.1, requests=window.limit)
    assert window.limit == 64


def test_new_bounds_keep_what_was_learned() -> None:
    """A lease of half the slots is half of the window that was found."""
    window = Window(Limits(64))
    for _ in range(200):
        window.learn(0.1, 0.1, requests=1)
        window.learn(3.0, 0.1, requests=window.limit)
    found = window.limit
    assert found < 64
    assert window.resized(Limits(64), 1.0, 2.0) is window
    assert window.resized(Limits(32), 1.0, 2.0).limit == pytest.approx(found / 2, abs=1)


def test_it_finds_the_size_of_an_engine_that_states_too_many_slots() -> None:
    """An engine that runs 16 at once behind 128 stated slots, always more work than it can do.

    The window comes down to where its internal queue is short, and the engine stays busy.
    """
    true_slots, service_s, idle_s = 16, 1.6, 0.1
    window = Window(Limits(128))
    for _ in range(20):
        window.learn(idle_s, idle_s, requests=1)
    now_s = 0.0
    ends: list[float] = []
    inside: deque[float] = deque()  # dispatched and not started
    dispatched = 0
    idle_slots: list[int] = []
    sizes: list[int] = []
    for _ in range(6000):
        now_s += 0.02
        ends = [end for end in ends if end > now_s]
        while inside and len(ends) < true_slots:
            came_s = inside.popleft()
            ends.append(now_s + service_s * (0.5 + (dispatched * 0.37) % 1.0))
            window.learn(now_s - came_s + idle_s, idle_s, len(ends) + len(inside))
        while len(ends) + len(inside) < window.limit:
            inside.append(now_s)
            dispatched += 1
        idle_slots.append(true_slots - len(ends))
        sizes.append(window.limit)
    assert sum(sizes[1000:]) / len(sizes[1000:]) <= 2 * true_slots
    assert max(sizes[1000:]) <= 3 * true_slots
    assert sum(idle_slots[1000:]) / len(idle_slots[1000:]) < 0.02 * true_slots
