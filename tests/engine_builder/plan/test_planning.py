"""A plan closes what a spec leaves open, says what its figures mean, and does not claim more than they do."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from engine_builder.checkpoint import Checkpoint
from engine_builder.errors import PlanError, SpecError
from engine_builder.identity import DECIDED, engine_digest
from engine_builder.plan import Plan, Roofline, advice, card_of, plan, resolve
from engine_builder.plan.advice import ratio
from engine_builder.plan.planning import HEADROOM, replicas
from model_registry.engine_specs import EngineSpec
from router.goodput import Ask
from router.roofline import Lines
from tests.engine_builder.plan.specs import LLAMA_8B, LLAMA_70B, decided, spec


class Tables:
    """Stands in for measured kernels: a roofline, with each lane's pace as told."""

    source = "planned"
    tells_lanes_apart = True

    def __init__(self, **paces: float) -> None:
        self._paces = paces
        self._roofline = Roofline()

    def about(self, spec: EngineSpec) -> str:
        return f"made up for {spec.lane}"

    def lines(self, spec: EngineSpec, checkpoint: Checkpoint, ask: Ask) -> Lines | None:
        found = self._roofline.lines(spec, checkpoint, ask)
        pace = self._paces.get(spec.lane.replace("-", "_"), 1.0)
        if found is None or pace == 0:
            return None
        return Lines(found[0] * pace, found[1] / pace, found[2] / pace, found[3] / pace)


def planned(model: Any = None, checkpoint: Checkpoint = LLAMA_8B, **fields: Any) -> Plan:
    return plan(spec(checkpoint=checkpoint.url, **fields), checkpoint, model)


# -- resolve ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["latency", "balanced", "throughput", "mine"])
@pytest.mark.parametrize("lane", ["trt-engine", "llmapi", "trtllm-serve", "vllm"])
def test_nothing_is_left_open(profile: str, lane: str) -> None:
    version = "0.24.0" if lane == "vllm" else "1.2.1"
    found = resolve(spec(profile=profile, lane=lane, version=version), LLAMA_8B)
    assert [name for name in DECIDED if getattr(found, name) is None] == []
    assert engine_digest(found, "0" * 64, "tensorrt-llm")
    assert resolve(found, LLAMA_8B) == found, "what is resolved stays as it is"


def test_what_the_spec_says_stays() -> None:
    said = {"precision": "bf16", "max_batch_size": 48, "max_num_tokens": 3000, "tensor_parallel": 2}
    found = resolve(spec(**said), LLAMA_8B)
    assert {name: getattr(found, name) for name in said} == said


def test_an_fp8_engine_gets_what_goes_with_it() -> None:
    found = resolve(spec(), LLAMA_8B)
    assert (found.precision, found.kv_cache, found.fp8_context_fmha) == ("fp8", "fp8", True)
    ampere = resolve(spec(gpu_class="a100-sxm-80gb"), LLAMA_8B)
    assert (ampere.precision, ampere.kv_cache, ampere.fp8_context_fmha) == ("bf16", "auto", False)


def test_profiles_move_the_engine() -> None:
    """Steps are shorter where answers must not wait; more requests run at once where they may."""
    quick, many = (resolve(spec(profile=name), LLAMA_8B) for name in ("latency", "throughput"))
    assert quick.max_num_tokens < many.max_num_tokens  # type: ignore[operator]
    assert quick.scheduler_policy == "guaranteed_no_evict"
    assert many.scheduler_policy == "max_utilization"
    tight = resolve(spec(workload={"itl_s": 0.01}), LLAMA_8B)
    assert tight.max_batch_size < many.max_batch_size  # type: ignore[operator]


def test_a_model_too_large_for_one_gpu_is_split() -> None:
    found = resolve(spec(checkpoint=LLAMA_70B.url, precision="bf16"), LLAMA_70B)
    assert found.tensor_parallel in {4, 8}
    with pytest.raises(SpecError, match=r"131\.4 GiB of weights.*\[memory-weights\]"):
        resolve(spec(checkpoint=LLAMA_70B.url, precision="bf16", tensor_parallel=1), LLAMA_70B)
    with pytest.raises(SpecError, match="memory"):
        resolve(spec(checkpoint=LLAMA_70B.url, gpu_class="l4"), LLAMA_70B, most_gpus=2)


def test_every_reason_is_said_at_once() -> None:
    wrong = spec(precision="fp8", kv_cache="int8", gpu_class="a100-sxm-80gb", tensor_parallel=3)
    with pytest.raises(SpecError) as caught:
        resolve(wrong, LLAMA_8B)
    for rule in ("precision-architecture", "int8-kv-paged", "tp-heads"):
        assert f"[{rule}]" in str(caught.value)
    assert caught.value.remedy


def test_an_engine_on_the_emulator_needs_no_figures() -> None:
    found = resolve(spec(gpu_class="cpu"), LLAMA_8B)
    assert [name for name in DECIDED if getattr(found, name) is None] == []
    assert found.gpus == 1
    with pytest.raises(SpecError, match="gpu-class"):
        resolve(spec(gpu_class="h1000"), LLAMA_8B)
    assert resolve(decided(gpu_class="h20"), LLAMA_8B) == decided(gpu_class="h20")


def test_a_prompt_that_is_not_chunked_fits_in_a_step() -> None:
    found = resolve(spec(chunked_context=False, workload={"input_tokens": 6000}), LLAMA_8B)
    assert found.max_num_tokens >= 6000  # type: ignore[operator]


def test_a_quantized_checkpoint_is_planned_as_it_is(tmp_path: Path) -> None:
    config = {**LLAMA_8B.config, "quantization_config": {"quant_method": "awq", "bits": 4}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    checkpoint = Checkpoint.open(str(tmp_path))
    assert resolve(spec(checkpoint=str(tmp_path)), checkpoint).precision == "int4-awq"


def test_a_draft_is_read_for_its_size() -> None:
    draft = {"mode": "draft_tokens_external", "max_draft_len": 4, "draft_checkpoint": LLAMA_8B.url}
    found = resolve(spec(checkpoint=LLAMA_70B.url, speculative=draft, profile="throughput"), LLAMA_70B)
    alone = resolve(spec(checkpoint=LLAMA_70B.url, profile="throughput"), LLAMA_70B)
    assert (found.tensor_parallel, found.max_batch_size) != (alone.tensor_parallel, alone.max_batch_size)
    assert found.max_num_tokens >= 5 * found.max_batch_size  # type: ignore[operator]


# -- plan -------------------------------------------------------------------------------------------------


def test_every_option_fits_is_legal_and_says_its_goodput() -> None:
    found = planned()
    assert [lane.lane for lane in found.lanes] == ["trt-engine", "llmapi", "vllm"]
    for option in (one for lane in found.lanes for one in lane.options):
        assert not [one for one in option.findings if one.severity == "error"]
        assert option.memory.fixed + option.memory.pool < option.memory.usable
        assert option.memory.requests(2560) >= option.spec.max_batch_size  # type: ignore[operator]
        assert option.card.source == "roofline"
        assert option.card.goodput is not None
        at = option.at_targets
        assert at is not None
        assert at.ttft_s <= found.ask.ttft_s
        assert at.itl_s <= found.ask.itl_s


def test_the_throughput_engine_does_most_per_gpu_and_the_latency_engine_takes_fewest() -> None:
    own = planned(checkpoint=LLAMA_70B, profile="throughput").own
    usual = [one for one in own.options if one.usual]
    assert own.throughput is max(usual, key=lambda one: one.tokens_per_s_per_gpu)
    assert own.chosen is own.throughput
    quick = planned(checkpoint=LLAMA_70B, profile="latency", workload={"itl_s": 0.012}).own
    assert quick.chosen is quick.latency
    assert quick.latency is not None
    assert quick.latency.spec.gpus == min(
        one.spec.gpus for one in quick.options if one.usual and one.at_targets is not None
    )


def test_few_bits_are_shown_and_not_chosen_unless_named() -> None:
    found = planned(gpu_class="b200-sxm").own
    assert {"bf16", "fp8", "nvfp4"} == {one.spec.precision for one in found.options}
    assert found.chosen is not None
    assert found.chosen.spec.precision == "fp8"
    named = planned(gpu_class="b200-sxm", precision="nvfp4").own.chosen
    assert named is not None
    assert named.spec.precision == "nvfp4"


def test_no_point_of_a_front_is_beaten_in_both() -> None:
    found = planned()
    points = found.front(found.own)
    assert len(points) > 5
    assert all(a.user < b.user and a.gpu > b.gpu for a, b in pairwise(points))


def test_stages_are_tried_where_links_are_slow() -> None:
    options = planned(checkpoint=LLAMA_70B, gpu_class="l40s").own.options
    assert {one.spec.pipeline_parallel for one in options} >= {2, 4}
    assert {one.spec.pipeline_parallel for one in planned().own.options} == {1}


def test_a_roofline_does_not_tell_lanes_apart_and_says_so() -> None:
    found = planned()
    assert "cannot be told" in advice(found)[0]
    assert ratio(found, "llmapi", "vllm") is None
    assert len(found.distinct) == 1
    assert any("planner" in line for line in found.left_out)


@pytest.mark.parametrize(
    ("pace", "said"),
    [
        (1.2, "TensorRT-LLM does 1.2"),
        (1.02, "are level here"),
        (0.7, "vLLM does 1.5"),
        (4.0, "Such a gap is one of the tables'"),
    ],
)
def test_how_much_tensorrt_is_ahead_of_vllm(pace: float, said: str) -> None:
    found = planned(Tables(llmapi=pace, trt_engine=pace))
    first, *others = advice(found)
    assert said in first
    assert any("Compiling is not shown to pay" in line for line in others), "nobody has measured it"


def test_only_what_a_compiled_engine_can_do_is_named() -> None:
    told = advice(planned(gpu_class="a100-sxm-80gb"))
    assert any("Only a compiled engine runs int8-sq" in line for line in told)


def test_gpus_for_a_rate() -> None:
    found = planned(workload={"requests_per_s": 100})
    best = found.own.chosen
    assert best is not None
    assert best.card.goodput is not None
    count = replicas(best, 100)
    assert count * HEADROOM * best.card.goodput.requests_per_s >= 100
    assert (count - 1) * HEADROOM * best.card.goodput.requests_per_s < 100
    assert any(
        f"take {count * best.spec.gpus} x h100-sxm in lane trt-engine" in line for line in advice(found)
    )


def test_targets_that_nothing_meets_are_said_to_be() -> None:
    found = planned(workload={"itl_s": 0.0005, "requests_per_s": 5})
    assert found.own.chosen is not None
    assert found.own.chosen.at_targets is None
    assert any("No engine meets the targets" in line for line in advice(found))
    assert any("cannot be served" in line for line in advice(found))


def test_what_the_tables_lack_is_left_out_and_named() -> None:
    found = planned(Tables(vllm=0))
    assert found.lane("vllm") is None
    assert any("no kernels for bf16, fp8" in line for line in found.left_out)


def test_a_gpu_that_no_table_has_is_planned_by_roofline() -> None:
    found = planned(Tables(trt_engine=0, llmapi=0, vllm=0))
    assert found.model.source == "roofline"
    assert "all figures are rooflines" in found.left_out[0]
    resolved = resolve(spec(), LLAMA_8B, Tables(trt_engine=0))
    assert resolved == resolve(spec(), LLAMA_8B)


def test_lanes_that_cannot_build_it_say_why() -> None:
    found = planned(precision="int8-sq", gpu_class="a100-sxm-80gb")
    lanes = {lane.lane: {one.rule for one in lane.refused} for lane in found.lanes}
    assert lanes == {"trt-engine": set(), "llmapi": {"lane-precision"}, "vllm": {"vllm-quantized"}}


def test_the_own_lane_must_be_possible() -> None:
    with pytest.raises(SpecError, match="precision-architecture"):
        planned(precision="fp8", gpu_class="a100-sxm-80gb")
    with pytest.raises(PlanError, match="h1000"):
        planned(gpu_class="h1000")


def test_an_engine_goes_with_its_forecast() -> None:
    resolved = resolve(spec(), LLAMA_8B)
    card = card_of(resolved, LLAMA_8B, Roofline())
    assert card is not None
    assert (card.source, card.slots, card.chunk_tokens) == (
        "roofline",
        resolved.max_batch_size,
        resolved.max_num_tokens,
    )
    assert card.goodput is not None
    assert card.goodput.requests_per_s > 0
    assert card_of(decided(gpu_class="cpu"), LLAMA_8B, Roofline()) is None
