"""Picture: Pareto fronts of a plan's lanes, a GPU's tokens per second against a user's, as SVG. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from engine_builder.amounts import parameters_told
from engine_builder.charts import Series, chart
from engine_builder.plan.choice import Point
from engine_builder.plan.planning import Plan


def picture(plan: Plan) -> str:
    """A line for each lane that differs, and one where the target between two tokens is missed."""
    ask, shape = plan.ask, plan.checkpoint.shape
    asked = f"{ask.prompt_tokens:,} + {ask.output_tokens:,} tokens, first within {ask.ttft_s:g} s"
    model = f"{shape.architecture}, {parameters_told(shape.parameters)}"
    title = f"{model}, on {plan.spec.gpu_class}: {asked} ({plan.model.source})"
    return chart(
        title,
        "tokens per second that a user sees",
        "tokens per second and GPU",
        [*_fronts(plan), *_target(plan)],
    )


def _fronts(plan: Plan) -> Iterator[Series]:
    for lane in plan.distinct:
        front = plan.front(lane)
        notes = [
            f"{label(one)}, {one.batch} at once, {one.user:.0f} tokens/s a user, {one.gpu:,.0f} a GPU"
            for one in front
        ]
        points = [(one.user, one.gpu) for one in front]
        yield Series(f"{plan.name_of(lane)}: {span(front)}", points, notes=notes)


def _target(plan: Plan) -> Iterator[Series]:
    """Upright, as high as the fronts are."""
    most = max((one.gpu for lane in plan.distinct for one in plan.front(lane)), default=0.0)
    if most > 0:
        user = 1 / plan.ask.itl_s
        name = f"target: {plan.ask.itl_s * 1e3:g} ms between two tokens, or less"
        yield Series(name, [(user, 0.0), (user, most)], marks=False)


def span(front: Sequence[Point]) -> str:
    """From which engine to which a front leads."""
    if not front:
        return "no first token in time"
    ends = dict.fromkeys((label(front[0]), label(front[-1])))
    return " to ".join(ends)


def label(point: Point) -> str:
    """Precision and split in a few characters: `fp8 TP2`, `bf16 TP4 PP2`."""
    spec = point.option.spec
    stages = f" PP{spec.pipeline_parallel}" if spec.pipeline_parallel != 1 else ""
    return f"{spec.precision} TP{spec.tensor_parallel}{stages}"
