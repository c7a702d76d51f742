"""What is expected of a model's requests, by when they came before."""

from __future__ import annotations

import pytest

from controller.residency.next_use import NextUse
from controller.residency.value import Outlook, absence_s, density

DAY_S = 86_400.0


def every(uses: NextUse, model: str, period_s: float, until_s: float, arrivals: int = 1) -> None:
    for number in range(int(until_s / period_s)):
        uses.seen(number * period_s, model, arrivals)


def test_nothing_is_expected_of_a_model_that_nobody_has_asked_for() -> None:
    assert Outlook() == NextUse().outlook(0, "m")


def test_a_model_in_use_is_likelier_to_be_used_than_one_that_has_been_idle_for_long() -> None:
    uses = NextUse()
    every(uses, "busy", 60, 3600)
    uses.seen(0, "idle", 1)
    assert uses.outlook(3600, "busy").use > 0.8
    assert uses.outlook(3600, "idle").use < 0.3


def test_what_comes_regularly_is_expected_when_its_time_comes() -> None:
    """An hour between requests: unlikely after ten minutes, likely after 58."""
    uses = NextUse()
    every(uses, "hourly", 3600, DAY_S)
    for number in range(200):
        uses.seen(DAY_S + number, "other", 1)
    last_s = DAY_S - 3600
    assert uses.outlook(last_s + 600, "hourly").use < 0.2
    assert uses.outlook(last_s + 3500, "hourly").use > 0.4


def test_old_habits_fade() -> None:
    """Once every ten minutes a week ago, once in six hours since: idle after half an hour, it stays idle."""
    uses = NextUse()
    every(uses, "m", 600, DAY_S)
    before = uses.outlook(DAY_S + 400, "m").use
    for number in range(28):
        uses.seen(DAY_S + (number + 1) * 21_600, "m", 1)
    assert uses.outlook(8 * DAY_S + 400, "m").use < before / 3


def test_requests_that_come_together_would_all_wait() -> None:
    """Absence costs more where a load keeps many waiting, and more for each MiB where the model is small."""
    uses = NextUse()
    every(uses, "bursts", 100, 3600, arrivals=20)
    every(uses, "singles", 100, 3600)
    bursts, singles = uses.outlook(3600, "bursts"), uses.outlook(3600, "singles")
    assert absence_s(bursts, 20) > 3 * absence_s(singles, 20)
    assert density(singles, 20, 10) == pytest.approx(10 * density(singles, 20, 100))


def test_what_nobody_can_ask_for_any_more_is_forgotten() -> None:
    uses = NextUse()
    every(uses, "kept", 60, 600)
    every(uses, "gone", 60, 600)
    uses.keep({"kept"})
    assert uses.outlook(600, "gone") == Outlook()
    assert uses.outlook(600, "kept").use > 0.5
