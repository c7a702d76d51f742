"""How a total is divided: fair by weight, whole, and never more than there is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from model_registry.slices.split import Share, Terms, allowance, even_part, targets
from model_registry.slices.usage import CELL_S, Window

shares = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=3),
    st.builds(Share, demand=st.integers(0, 300), weight=st.floats(0.1, 10)),
    max_size=20,
)


@given(st.integers(0, 500), shares)
def test_targets_never_exceed_the_total_and_leave_nothing_that_is_needed(
    total: int, asked: dict[str, Share]
) -> None:
    found = targets(total, asked)
    assert sum(found.values()) <= total
    wanted = sum(share.demand for share in asked.values())
    useful = sum(min(found[name], share.demand) for name, share in asked.items())
    assert useful == min(total, wanted)


@given(st.integers(0, 500), shares)
def test_who_is_short_has_its_fair_share(total: int, asked: dict[str, Share]) -> None:
    """Nobody lacks anything while another one holds more for its weight."""
    found = targets(total, asked)
    short = [name for name, share in asked.items() if found[name] < share.demand]
    for poor in short:
        for other, part in found.items():
            assert (part - 1) / asked[other].weight <= (found[poor] + 1) / asked[poor].weight


@given(st.integers(0, 1000), st.integers(1, 40))
def test_even_parts_add_up_to_the_total(total: int, workers: int) -> None:
    assert sum(even_part(total, rank, workers) for rank in range(workers)) == total


def test_a_slice_goes_on_then_shrinks_then_is_the_even_part() -> None:
    def at(now_s: float, held: int) -> int:
        terms = Terms(held, until_s=10.0, even=5, unheld=1)
        return allowance(terms, lease_s=3.0, window_s=60.0, now_s=now_s)

    assert [at(9.9, 12), at(10.0, 12), at(12.9, 2), at(13.0, 2), at(73.0, 2)] == [12, 5, 2, 3, 5]


def test_units_of_a_window_return_after_it_and_never_before() -> None:
    window = Window(60.0)
    window.add(3, 100.05)
    window.add(4, 101.0)
    assert window.total(160.04) == 7
    assert window.total(160.05 + CELL_S) == 4
    assert window.total(161.0 + CELL_S) == 0


def test_units_that_were_given_back_are_free_at_once_but_not_twice() -> None:
    window = Window(60.0)
    window.add(10, 100.0)
    window.remove(4, 100.0, 130.0)
    assert window.total(130.0) == 6
    window.add(5, 130.0)
    window.remove(4, 100.0, 161.0)
    assert window.total(161.0) == 5


def test_when_units_return_is_known() -> None:
    window = Window(60.0)
    window.add(3, 100.0)
    window.add(3, 110.0)
    assert 50.0 <= window.free_in_s(110.0, 2) <= 50.0 + CELL_S
    assert 60.0 <= window.free_in_s(110.0, 4) <= 60.0 + CELL_S
    assert window.free_in_s(110.0, 7) == 0.0
