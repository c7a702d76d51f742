"""Shedding: the price of prefill follows how much of the engines' time it takes."""

from __future__ import annotations

from router.shedding import CRITICAL_S, Shedding


def run(shedding: Shedding, prefill_s: float, per_s: float, seconds: float, began_s: float) -> float:
    """Offer equal sheddable requests for a while; the share of them that was let in."""
    offered = int(per_s * seconds)
    let_in = 0
    for n in range(offered):
        now_s = began_s + n / per_s
        if not shedding.sheds("sheddable", prefill_s, 4, now_s):
            shedding.dispatched(prefill_s, 4, now_s)
            let_in += 1
    return let_in / offered


def test_within_the_share_nothing_is_refused() -> None:
    """A quarter of the time of four engines, where two fifths are allowed."""
    assert run(Shedding(0.4), 0.5, 2.0, 120, 0.0) == 1.0


def test_what_is_let_in_comes_down_to_the_share() -> None:
    """Of requests that would take all the time, about two fifths."""
    shedding = Shedding(0.4)
    run(shedding, 0.5, 8.0, 120, 0.0)
    assert 0.3 <= run(shedding, 0.5, 8.0, 240, 120.0) <= 0.5


def test_large_prompts_go_first_and_critical_ones_last() -> None:
    """One price for all: small prompts and those that are worth more stay below it longest.

    What a critical request of common size costs is never too much.
    """
    shedding = Shedding(0.2)
    for n in range(400):
        shedding.dispatched(0.5, 4, n / 4)
    price_s, now_s = shedding.price_s, 100.0
    assert price_s < 1.0
    assert shedding.sheds("sheddable", 2 * price_s, 4, now_s)
    assert not shedding.sheds("sheddable", 0.5 * price_s, 4, now_s)
    assert not shedding.sheds("critical", 10 * price_s, 4, now_s)
    assert not shedding.sheds("critical", CRITICAL_S, 4, now_s)
    assert shedding.sheds("critical", max(10 * price_s, 1.1 * CRITICAL_S), 4, now_s)


def test_the_price_recovers_when_load_goes() -> None:
    """After some minutes without work everything is let in again."""
    shedding = Shedding(0.2)
    for n in range(400):
        shedding.dispatched(0.5, 4, n / 4)
    assert shedding.sheds("sheddable", 5.0, 4, 100.0)
    for n in range(10):
        shedding.sheds("sheddable", 0.0, 4, 100.0 + 10 * n)
    assert not shedding.sheds("sheddable", 5.0, 4, 200.0)
