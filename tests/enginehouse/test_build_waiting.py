"""Why a queued build waits, as those who wait are told."""

from __future__ import annotations

import pytest

from enginehouse.build_waiting import somebody_can, why_it_waits
from model_registry.build_jobs.entities import GONE_S, Able, AskedBuild, BuilderSeen

REAL = AskedBuild("e", "0" * 64, {}, "tensorrt-llm", "", gpu_class="h100-sxm", gpus=4)
HOPPER = Able(("tensorrt-llm",), "h100-sxm", 8)
LAPTOP = Able(("emulated",))


def seen(able: Able, *, age_s: float = 1.0, build: str = "") -> BuilderSeen:
    return BuilderSeen("b", able, build, age_s)


@pytest.mark.parametrize(
    ("builders", "says", "can"),
    [
        ([], "no builder has looked for builds here yet", False),
        ([seen(HOPPER, age_s=400)], "no builder has looked for builds for 6 min 40 s", False),
        ([seen(LAPTOP)], "4 x h100-sxm, and no builder that runs can do that (emulated)", False),
        ([seen(LAPTOP), seen(HOPPER, age_s=GONE_S)], "no builder that runs can do that", False),
        ([seen(HOPPER, build="b-1")], "every builder that can do it is at work (1)", True),
        ([seen(HOPPER, build="b-1"), seen(HOPPER)], "about to take it", True),
    ],
)  # fmt: skip
def test_why_a_build_waits(builders: list[BuilderSeen], says: str, can: bool) -> None:
    assert says in why_it_waits(REAL, builders)
    assert somebody_can(REAL, builders) == can
