"""Who has far more under way than others."""

from __future__ import annotations

import pytest

from router.under_way import AHEAD, UnderWay


def under_way(counts: dict[str, int], weights: dict[str, float] | None = None) -> UnderWay:
    found = UnderWay()
    for tenant, count in counts.items():
        for _ in range(count):
            found.begin(tenant, (weights or {}).get(tenant, 1.0))
    return found


def test_a_flood_is_ahead_and_the_others_are_not() -> None:
    """By what the others have in the mean, not by what they have together."""
    found = under_way({"flood": 13, "a": 5, "b": 3})
    assert found.is_ahead("flood", 1.0)
    assert not found.is_ahead("a", 1.0)
    assert not found.is_ahead("new", 1.0)


@pytest.mark.parametrize(("count", "is_ahead"), [(int(AHEAD * 4), False), (int(AHEAD * 4) + 1, True)])
def test_twice_the_weight_may_have_twice_as_much(count: int, is_ahead: bool) -> None:
    """Of all that it is compared with, the weight counts."""
    found = under_way({"double": 2 * count, "a": 2, "b": 12}, {"double": 2.0, "b": 2.5})
    assert found.is_ahead("double", 2.0) is is_ahead


def test_who_has_all_is_ahead_until_it_has_nothing() -> None:
    """With nobody to compare it with."""
    found = under_way({"only": 2})
    assert found.is_ahead("only", 1.0)
    found.end("only")
    found.end("only")
    assert not found.is_ahead("only", 1.0)
    assert len(found) == 0
