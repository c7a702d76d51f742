"""The short form of the campaign that kills and freezes leaders while they scale."""

from __future__ import annotations

from pathlib import Path

from bench.scale.leaders import Pace, leaders

QUICK = Pace(
    controllers=2, ttl_s=1.5, interval_s=0.5, margin_s=0.5, frozen_s=2.5, freeze_every=2, take_over_s=5.0
)


async def test_whoever_acts_leads_and_nothing_is_left(tmp_path: Path) -> None:
    """Real controllers; one leader is killed, the next is frozen and wakes with a lapsed claim."""
    told = await leaders(2, 3, lambda _: None, tmp_path, QUICK)
    assert (told["kills"], told["freezes"]) == (1, 1)
    assert told["acts_without_claim"] == 0, told["wrong"]
    assert (told["started_twice"], told["orphans"]) == (0, 0)
    assert told["starts"] > 0
    assert told["stops"] > 0
