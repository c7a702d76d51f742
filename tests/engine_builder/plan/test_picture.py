"""The picture is well-formed, keeps within its frame and says what it shows."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest

from engine_builder.plan import picture, plan
from engine_builder.plan.picture import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, ceiling
from tests.engine_builder.plan.specs import LLAMA_8B, spec
from tests.engine_builder.plan.test_planning import Tables

SVG = "{http://www.w3.org/2000/svg}"


def drawn(model: Any = None, **fields: Any) -> ElementTree.Element:
    return ElementTree.fromstring(picture(plan(spec(**fields), LLAMA_8B, model)))


def texts(root: ElementTree.Element) -> list[str]:
    return ["".join(one.itertext()) for one in root.iter(f"{SVG}text")]


def test_points_are_within_the_frame() -> None:
    circles = list(drawn().iter(f"{SVG}circle"))
    assert len(circles) > 5
    for one in circles:
        assert LEFT <= float(one.attrib["cx"]) <= WIDTH - RIGHT
        assert TOP <= float(one.attrib["cy"]) <= HEIGHT - BOTTOM


def test_lanes_that_figures_do_not_tell_apart_are_one_line() -> None:
    root = drawn()
    assert len(list(root.iter(f"{SVG}polyline"))) == 1
    assert any(one.startswith("every lane: ") for one in texts(root))
    root = drawn(Tables(vllm=0.8))
    assert len(list(root.iter(f"{SVG}polyline"))) == 2
    assert any("compiled engines were not measured" in one for one in texts(root))
    assert any(one.startswith("vllm: ") for one in texts(root))


def test_it_says_model_gpu_workload_and_source() -> None:
    told = " ".join(texts(drawn(gpu_class="l40s")))
    for wanted in (
        "LlamaForCausalLM",
        "8.0 B",
        "l40s",
        "2,048 tokens in",
        "512 out",
        "roofline",
        "target: 50 ms",
    ):
        assert wanted in told


def test_targets_that_nothing_meets_leave_a_picture() -> None:
    assert texts(drawn(workload={"ttft_s": 0.0001}))


@pytest.mark.parametrize(
    ("value", "wanted"), [(1, 1), (1.01, 1.2), (97, 100), (405, 480), (6460, 8000), (0.3, 0.32)]
)
def test_axes_end_at_round_numbers(value: float, wanted: float) -> None:
    assert ceiling(value) == pytest.approx(wanted)
