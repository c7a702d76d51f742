"""The picture is well-formed, keeps within its frame and says what it shows."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

from engine_builder.plan import picture, plan
from tests.engine_builder.plan.specs import LLAMA_8B, spec
from tests.engine_builder.plan.test_planning import Tables

SVG = "{http://www.w3.org/2000/svg}"


def drawn(model: Any = None, **fields: Any) -> ElementTree.Element:
    return ElementTree.fromstring(picture(plan(spec(**fields), LLAMA_8B, model)))


def texts(root: ElementTree.Element) -> list[str]:
    return ["".join(one.itertext()) for one in root.iter(f"{SVG}text")]


def test_there_is_a_mark_for_each_load_with_what_it_is() -> None:
    notes = [one.text for one in drawn().iter(f"{SVG}title")]
    assert len(notes) > 5
    assert all("at once" in str(note) for note in notes)


def test_lanes_that_figures_do_not_tell_apart_are_one_line() -> None:
    """Besides the one at the target."""
    root = drawn()
    assert len(list(root.iter(f"{SVG}polyline"))) == 2
    assert any(one.startswith("every lane: ") for one in texts(root))
    root = drawn(Tables(vllm=0.8))
    assert len(list(root.iter(f"{SVG}polyline"))) == 3
    assert any("compiled engines were not measured" in one for one in texts(root))
    assert any(one.startswith("vllm: ") for one in texts(root))


def test_it_says_model_gpu_workload_and_source() -> None:
    told = " ".join(texts(drawn(gpu_class="l40s")))
    for wanted in ("LlamaForCausalLM", "8.0 B", "l40s", "2,048 + 512 tokens", "roofline", "target: 50 ms"):
        assert wanted in told


def test_targets_that_nothing_meets_leave_a_picture() -> None:
    assert any("no first token in time" in one for one in texts(drawn(workload={"ttft_s": 0.0001})))
