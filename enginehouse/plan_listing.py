"""A plan for people, as tables, a plot and sentences; and for programs, as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from engine_builder.amounts import parameters_told
from engine_builder.charts import round_up
from engine_builder.plan import Finding, LanePlan, Option, Plan, advice
from engine_builder.plan.choice import Point
from engine_builder.plan.memory import GIB
from engine_builder.plan.picture import label, span
from model_registry.engine_specs import EngineSpec

PLOT_WIDTH, PLOT_HEIGHT = 72, 14
MARKS = "●○△□"
STYLES = {"error": "red", "warning": "yellow", "note": "dim"}


def listing(plan: Plan) -> Iterator[RenderableType]:
    """One part after the other."""
    yield _engines(plan)
    yield from _plot(plan)
    for title, lines in (("What it comes to", advice(plan)), ("Left out", plan.left_out)):
        yield Text(f"\n{title}", style="bold")
        for line in lines:
            yield Padding(Text(f"- {line}"), (0, 0, 0, 2))
    findings = [one for one in plan.own.chosen.findings if one.severity != "note"] if plan.own.chosen else []
    for title, found in (
        ("To know about the engine chosen", findings),
        ("Cannot be built", plan.own.refused),
    ):
        if found:
            yield Text(f"\n{title}", style="bold")
        for one in found:
            yield Padding(Text(f"- {one}", style=STYLES[one.severity]), (0, 0, 0, 2))
    for lane in plan.lanes:
        if not lane.options and lane.refused:
            yield Text(f"\nNothing in lane {lane.lane}", style="bold")
            yield from (Padding(Text(f"- {one}", style="red"), (0, 0, 0, 2)) for one in lane.refused)
    yield Text("")


def _engines(plan: Plan) -> Table:
    ask, shape = plan.ask, plan.checkpoint.shape
    table = Table(
        title=f"{plan.spec.name}: {shape.architecture}, {parameters_told(shape.parameters)} parameters, on "
        f"{plan.spec.gpu_class}; {ask.prompt_tokens:,} tokens in, {ask.output_tokens:,} out; first within "
        f"{ask.ttft_s:g} s, {ask.itl_s * 1e3:g} ms between two",
        title_justify="left",
        caption=" ".join(dict.fromkeys(plan.model.about(lane.spec) for lane in plan.distinct)),
        caption_justify="left",
    )
    for head in ("lane", "best for", "engine", "GPUs"):
        table.add_column(head)
    for head in (
        "weights GiB",
        "KV GiB",
        "KV tokens",
        "max batch",
        "step tokens",
        "req/s",
        "tok/s/GPU",
        "TTFT ms",
        "ITL ms",
        "alone ms",
    ):
        table.add_column(head, justify="right")
    for lane in plan.lanes:
        for name, option in _best(lane):
            chosen = lane is plan.own and option is lane.chosen
            table.add_row(*_row(lane, name, option), style="bold" if chosen else None)
        table.add_section()
    return table


def _best(lane: LanePlan) -> list[tuple[str, Option]]:
    if lane.latency is None or lane.throughput is None:
        return []
    if lane.latency is lane.throughput:
        return [("both", lane.latency)]
    return [("latency", lane.latency), ("throughput", lane.throughput)]


def _row(lane: LanePlan, name: str, option: Option) -> list[str]:
    spec, memory, at = option.spec, option.memory, option.at_targets
    stages = f" PP{spec.pipeline_parallel}" if spec.pipeline_parallel != 1 else ""
    engine = f"{spec.precision}, KV {spec.kv_cache}, TP{spec.tensor_parallel}{stages}"
    figures = ("-", "-", "-", "-")
    if at is not None:
        figures = (
            f"{at.requests_per_s:.3g}",
            f"{option.tokens_per_s_per_gpu:,.0f}",
            f"{at.ttft_s * 1e3:.0f}",
            f"{at.itl_s * 1e3:.1f}",
        )
    return [
        f"{lane.lane} {lane.spec.version}",
        name,
        engine,
        str(spec.gpus),
        f"{memory.weights / GIB:.1f}",
        f"{memory.pool / GIB:.1f}",
        f"{memory.tokens:,}",
        str(spec.max_batch_size),
        str(spec.max_num_tokens),
        *figures,
        f"{option.alone.itl_s * 1e3:.1f}",
    ]


def _plot(plan: Plan) -> Iterator[RenderableType]:
    """Tokens per second and GPU upwards, those of a user to the right."""
    fronts = [(lane, plan.front(lane)) for lane in plan.distinct]
    points = [point for _, front in fronts for point in front]
    if not points:
        return
    most_user = round_up(max(point.user for point in points))
    most_gpu = round_up(max(point.gpu for point in points))
    grid = [[" "] * (PLOT_WIDTH + 1) for _ in range(PLOT_HEIGHT + 1)]
    for (_, front), mark in zip(fronts, MARKS, strict=False):
        for point in front:
            row = PLOT_HEIGHT - round(PLOT_HEIGHT * point.gpu / most_gpu)
            grid[row][round(PLOT_WIDTH * point.user / most_user)] = mark
    yield Text("\nTokens/s of a GPU (up) against tokens/s that a user sees (right)", style="bold")
    for number, row_marks in enumerate(grid):
        named = number in (0, PLOT_HEIGHT // 2, PLOT_HEIGHT)
        figure = f"{most_gpu * (PLOT_HEIGHT - number) / PLOT_HEIGHT:,.0f}" if named else ""
        yield Text(f"{figure:>8} │{''.join(row_marks).rstrip()}")
    yield Text(f"{'':9}└{'─' * PLOT_WIDTH}")
    yield Text(f"{'':10}0{most_user / 2:>{PLOT_WIDTH // 2},.0f}{most_user:>{PLOT_WIDTH // 2},.0f}")
    for (lane, front), mark in zip(fronts, MARKS, strict=False):
        name = plan.name_of(lane)
        yield Text(f"  {mark} {name}: {span(front)}")


def as_json(plan: Plan, resolved: EngineSpec) -> dict[str, Any]:
    """All of it, figures in SI units."""
    return {
        "spec": resolved.model_dump(mode="json"),
        "ask": plan.ask._asdict(),
        "source": plan.model.source,
        "lanes": [_lane_json(plan, lane) for lane in plan.lanes],
        "advice": advice(plan),
        "left_out": list(plan.left_out),
    }


def _lane_json(plan: Plan, lane: LanePlan) -> dict[str, Any]:
    return {
        "lane": lane.lane,
        "version": lane.spec.version,
        "about": plan.model.about(lane.spec),
        "latency": None if lane.latency is None else _option_json(lane.latency),
        "throughput": None if lane.throughput is None else _option_json(lane.throughput),
        "chosen": None if lane.chosen is None else _option_json(lane.chosen),
        "options": [_option_json(one) for one in lane.options],
        "pareto": [_point_json(point) for point in plan.front(lane)],
        "refused": [_finding_json(one) for one in lane.refused],
        "unknown": list(lane.unknown),
    }


def _option_json(option: Option) -> dict[str, Any]:
    spec, memory = option.spec, option.memory
    decided = (
        "precision",
        "kv_cache",
        "tensor_parallel",
        "pipeline_parallel",
        "max_batch_size",
        "max_num_tokens",
    )
    return {
        **{name: getattr(spec, name) for name in decided},
        "usual": option.usual,
        "memory": {
            "usable_bytes": memory.usable,
            "weights_bytes": memory.weights,
            "activations_bytes": memory.activations,
            "buffers_bytes": memory.buffers,
            "draft_bytes": memory.draft,
            "lora_bytes": memory.lora,
            "kv_bytes": memory.pool,
            "kv_bytes_per_token": memory.kv_per_token,
            "kv_tokens": memory.tokens,
        },
        "card": option.card.model_dump(mode="json"),
        "at_targets": None if option.at_targets is None else option.at_targets._asdict(),
        "alone": option.alone._asdict(),
        "findings": [_finding_json(one) for one in option.findings],
    }


def _point_json(point: Point) -> dict[str, Any]:
    return {
        "user_tokens_per_s": point.user,
        "gpu_tokens_per_s": point.gpu,
        "batch": point.batch,
        "engine": label(point),
    }


def _finding_json(finding: Finding) -> dict[str, str]:
    return {
        "rule": finding.rule,
        "field": finding.field,
        "severity": finding.severity,
        "reason": finding.reason,
        "remedy": finding.remedy,
    }
