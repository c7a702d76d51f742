"""Advice: what a plan's figures say of the choice of lanes, and what they cannot say. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from engine_builder.contract.versions import LAST_ENGINE_VERSION
from engine_builder.plan.options import Option
from engine_builder.plan.planning import HEADROOM, LanePlan, Plan, replicas
from model_registry.engine_specs import BuildLane

NO_DIFFERENCE = 0.1
"""Of two forecasts: below it neither is ahead. Such tables are off by more against real traffic."""
DOUBTFUL = 2.0
"""Beyond it one side's tables lack a good kernel rather than its software."""


def advice(plan: Plan) -> list[str]:
    """Sentences, the most important first."""
    return [
        *_lanes(plan),
        *_compiling(plan),
        *_profiles(plan.own),
        *_rate(plan),
    ]


def ratio(plan: Plan, lane: BuildLane, beside: BuildLane) -> float | None:
    """Tokens per second and GPU within the targets, one lane's best by another's.

    None: one of them has no engine that meets the targets, or the figures do not tell lanes apart.
    """
    ours, theirs = (_best(plan, one) for one in (lane, beside))
    if not plan.model.tells_lanes_apart or ours is None or theirs is None:
        return None
    return ours.tokens_per_s_per_gpu / theirs.tokens_per_s_per_gpu


def _best(plan: Plan, lane: BuildLane) -> Option | None:
    found = plan.lane(lane)
    best = found.throughput if found is not None else None
    return best if best is not None and best.at_targets is not None else None


def _lanes(plan: Plan) -> Iterator[str]:
    if not plan.model.tells_lanes_apart:
        yield (
            "Which lane is faster cannot be told: a roofline knows the GPU and the model's size, not the "
            "software. Install the planner's kernel tables, or measure two engines with "
            "`enginehouse loadtest`."
        )
        return
    tensorrt: BuildLane = "llmapi" if _best(plan, "llmapi") is not None else "trt-engine"
    found = ratio(plan, tensorrt, "vllm")
    if found is None:
        return
    ours, theirs = _best(plan, tensorrt), _best(plan, "vllm")
    assert ours is not None
    assert theirs is not None
    figures = (
        f"{ours.tokens_per_s_per_gpu:,.0f} against {theirs.tokens_per_s_per_gpu:,.0f} tokens/s per GPU "
        "at your targets"
    )
    if not 1 / DOUBTFUL < found < DOUBTFUL:
        yield (
            f"The tables say TensorRT-LLM does {found:.2f} x vLLM here, {figures}. Such a gap is one of the "
            "tables' more likely than one of the software's: measure both."
        )
    elif abs(found - 1) < NO_DIFFERENCE:
        yield f"TensorRT-LLM and vLLM are level here ({found:.2f} x: {figures}): choose by what you run best."
    elif found > 1:
        yield f"TensorRT-LLM does {found:.2f} x vLLM here, {figures}."
    else:
        yield f"vLLM does {1 / found:.2f} x TensorRT-LLM here, {figures} (TensorRT-LLM's first)."


def _compiling(plan: Plan) -> Iterator[str]:
    compiled = plan.lane("trt-engine")
    if compiled is None:
        return
    only = sorted(
        {str(one.spec.precision) for one in compiled.options}
        - {str(one.spec.precision) for lane in plan.lanes if lane is not compiled for one in lane.options}
    )
    if only:
        yield f"Only a compiled engine runs {', '.join(only)} on {plan.spec.gpu_class}."
    if plan.model.tells_lanes_apart:
        yield (
            "Compiling is not shown to pay: the tables are of TensorRT-LLM's PyTorch backend, no compiled "
            f"engine was measured. Its lane ends with {LAST_ENGINE_VERSION}, and every update costs a build. "
            "Compile only what `enginehouse loadtest` shows to be faster."
        )


def _profiles(own: LanePlan) -> Iterator[str]:
    if own.chosen is not None and not own.chosen.usual:
        yield (
            f"Only {own.chosen.spec.precision} fits: compare its answers with those of 16 bits before you "
            "rely on them, or take more GPUs."
        )
    if own.chosen is not None and own.chosen.at_targets is None:
        fastest = own.chosen
        yield (
            f"No engine meets the targets: the fastest has a first token after {fastest.alone.ttft_s:.3g} s "
            f"and {fastest.alone.itl_s * 1e3:.3g} ms between two, with one request at a time. Ask for less, "
            "or allow more GPUs."
        )
        return
    quick = min((one for one in own.options if one.usual), key=lambda one: one.answer_s, default=None)
    if own.latency is not None and quick is not None and quick.answer_s < 0.8 * own.latency.answer_s:
        yield (
            f"For one user {quick.spec.gpus} GPUs ({quick.spec.precision}) would be "
            f"{own.latency.answer_s / quick.answer_s:.1f} x as fast as {own.latency.spec.gpus}, at "
            f"{quick.tokens_per_s_per_gpu:,.0f} instead of {own.latency.tokens_per_s_per_gpu:,.0f} tokens/s "
            "per GPU."
        )


def _rate(plan: Plan) -> Iterator[str]:
    rate = plan.spec.workload.requests_per_s
    if rate is None:
        return
    for lane in plan.lanes:
        best = lane.chosen
        if best is None:
            continue
        count = replicas(best, rate)
        if count:
            yield (
                f"{rate:g} requests/s take {count * best.spec.gpus} x {plan.spec.gpu_class} in lane "
                f"{lane.lane}: {count} replicas of {best.spec.gpus}, at {HEADROOM:.0%} of their goodput."
            )
        else:
            yield f"{rate:g} requests/s cannot be served within the targets in lane {lane.lane}."
