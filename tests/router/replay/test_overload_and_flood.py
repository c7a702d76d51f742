"""The scenarios of overload and of a flood, in a form that takes a few seconds."""

from __future__ import annotations

from router.replay.flood import flood
from router.replay.overload import KNOBS, overload
from router.replay.table import BARS
from router.replay.workload import Workload, bundled


def _first(requests: int) -> Workload:
    whole = bundled("mooncake")
    return whole._replace(requests=whole.requests[:requests])


def test_overload_serves_critical_requests_and_is_worth_its_refusals() -> None:
    """At 2.1 times the capacity: without admission next to nothing is in time."""
    trace = _first(1500)
    held = overload(10.2, seed=2, workload=trace)
    free = overload(
        10.2,
        seed=2,
        workload=trace,
        slots=256,
        knobs=KNOBS.model_copy(update={"refuse_late": False, "prefill_share": None}),
    )
    assert free.refused == {}
    assert held.goodput > 2 * free.goodput
    assert held.critical > 0.9
    assert set(held.refused) <= {"shed", "predicted_late"}


def test_a_flood_is_held_to_its_share() -> None:
    """The gap is of the size of a request, where first come, first served lets it grow without end."""
    row = flood(24, 60, seed=2, seconds=20)
    assert row.gap <= BARS["flood_gap_tokens"].limit < row.gap_fcfs
