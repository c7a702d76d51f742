"""The adapter to measured kernel tables, against answers recorded from the real tool.

The tool itself is asked by `python -m bench.planner`, which also says when its answers are others than these.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine_builder.checkpoint import Checkpoint
from engine_builder.errors import PlanError
from engine_builder.plan import KernelTables, advice, plan, resolve
from engine_builder.plan.advice import ratio
from engine_builder.plan.kernel_tables import SYSTEMS, installed
from router.goodput import Ask
from router.gpus import GPUS
from tests.engine_builder.plan.specs import LLAMA_8B, decided, spec

RECORDED = json.loads(
    (Path(__file__).parents[2] / "data" / "aiconfigurator" / "llama-3-8b-h100.json").read_text()
)
ASK = Ask(2048, 512, 2.0, 0.05)


class Recorded:
    """Gives the recorded answers, and remembers what was asked of it."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self._answers = {_key(one["asked"]): one for one in RECORDED["answers"]}

    def __call__(self, *, model_path: str, **asked: Any) -> SimpleNamespace:
        config = json.loads((Path(model_path) / "config.json").read_text())
        assert config == dict(LLAMA_8B.config), "the tool reads the checkpoint's own config"
        self.asked.append(asked)
        answer = self._answers[_key(asked)]
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return SimpleNamespace(raw=answer["raw"])

    def tables(self) -> KernelTables:
        return KernelTables(
            self,
            lambda system, backend: RECORDED["latest"].get(f"{system}/{backend}"),
            RECORDED["aiconfigurator"],
        )


def _key(asked: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(sorted(asked.items()))


def test_lines_go_through_what_was_recorded() -> None:
    """One prompt of 2,048 tokens took 46.7 ms, a step of one request 6.6 ms and one of 128 20.2 ms."""
    lines = Recorded().tables().lines(decided(lane="llmapi"), LLAMA_8B, ASK)
    assert lines is not None
    assert lines.prefill_tokens_per_s == pytest.approx(2048 / 0.04668, rel=1e-3)
    for batch in (1, 8, 32, 128):
        step_ms = next(
            one["raw"]["generation_latency"]
            for one in RECORDED["answers"]
            if (one["asked"]["backend_name"], one["asked"]["tp_size"]) == ("trtllm", 1)
            and (one["asked"]["batch_size"], one["asked"]["mode"]) == (batch, "static_gen")
            and one["asked"]["gemm_quant_mode"] == "bfloat16"
        )
        on_line = lines.step_s + (batch - 1) * lines.step_per_request_s
        assert on_line * 1e3 == pytest.approx(step_ms, rel=0.06), batch


def test_lanes_of_one_backend_are_asked_once() -> None:
    recorded = Recorded()
    tables = recorded.tables()
    engine, api = (tables.lines(decided(lane=lane), LLAMA_8B, ASK) for lane in ("trt-engine", "llmapi"))
    assert engine == api
    assert len(recorded.asked) == 5


def test_what_is_not_in_the_tables_is_not_made_up() -> None:
    tables = Recorded().tables()
    assert tables.lines(decided(precision="int8-sq"), LLAMA_8B, ASK) is None, "the tool raised"
    assert tables.lines(decided(gpu_class="l4", precision="fp8"), LLAMA_8B, ASK) is None
    assert tables.lines(decided(gpu_class="a100-sxm-80gb"), LLAMA_8B, ASK) is None, "no tables were recorded"


def test_a_plan_of_measured_kernels_compares_lanes_and_admits_what_was_not_measured() -> None:
    found = plan(spec(), LLAMA_8B, Recorded().tables(), most_gpus=2)
    assert found.own.chosen is not None
    assert found.own.chosen.card.source == "planned"
    assert found.own.unknown == ("int8-sq", "int4-awq")
    beside = ratio(found, "llmapi", "vllm")
    assert beside is not None
    assert 0.9 < beside < 1.2
    told = " ".join(advice(found))
    assert "level here" in told
    assert "no compiled engine was measured" in told
    assert [lane.lane for lane in found.distinct] == ["llmapi", "vllm"]
    about = {lane.lane: found.model.about(lane.spec) for lane in found.lanes}
    assert "1.3.0rc20" in about["llmapi"]
    assert "Compiled engines were not measured" in about["trt-engine"]
    assert "vLLM 0.24.0" in about["vllm"]


def test_a_spec_is_resolved_by_the_tables_too() -> None:
    found = resolve(spec(), LLAMA_8B, Recorded().tables(), most_gpus=2)
    assert (found.precision, found.tensor_parallel) == ("fp8", 1)


def test_stages_and_experts_are_asked_for() -> None:
    seen: list[dict[str, Any]] = []

    def estimate(**asked: Any) -> SimpleNamespace:
        seen.append(asked)
        return SimpleNamespace(
            raw={"context_latency": 100.0, "generation_latency": 10.0 + asked["batch_size"]}
        )

    tables = KernelTables(estimate, lambda system, backend: "1", "0")
    lines = tables.lines(decided(pipeline_parallel=2), LLAMA_8B, ASK)
    assert lines is not None
    assert lines.prefill_tokens_per_s == pytest.approx(2 * 20480), "both stages work on prompts"
    assert {one["pp_size"] for one in seen} == {2}
    seen.clear()
    mixture = Checkpoint(
        "here", LLAMA_8B.config, LLAMA_8B.shape.__class__.of({**LLAMA_8B.config, "num_local_experts": 8}), {}
    )
    assert tables.lines(decided(tensor_parallel=2), mixture, ASK) is not None
    assert {(one["moe_quant_mode"], one["moe_tp_size"], one["moe_ep_size"]) for one in seen} == {
        ("bfloat16", 2, 1)
    }
    assert min(one["batch_size"] for one in seen if one["mode"] == "static_gen") == 8


def test_without_the_extra_the_remedy_is_named() -> None:
    if installed():
        assert KernelTables.load().version
    else:
        with pytest.raises(PlanError) as caught:
            KernelTables.load()
        assert "enginehouse[planner]" in caught.value.remedy


def test_every_system_is_one_of_ours() -> None:
    assert SYSTEMS.keys() <= GPUS.keys()
