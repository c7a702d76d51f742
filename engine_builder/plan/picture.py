"""Picture: Pareto fronts of a plan's lanes, a GPU's tokens per second against a user's, as SVG. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape

from engine_builder.plan.choice import Point
from engine_builder.plan.planning import LanePlan, Plan

WIDTH, HEIGHT = 760, 500
LEFT, RIGHT, TOP, BOTTOM = 78, 24, 62, 122
COLOURS = ("#1b6ca8", "#d1722a", "#3f8f4f", "#7a4fa3")
DASHES = ("", "7 4", "2 3", "9 3 2 3")
_FONT = 'font-family="sans-serif" font-size="12"'


def picture(plan: Plan) -> str:
    """A line for each lane that differs, and one where the target between two tokens is missed."""
    fronts = [(lane, plan.front(lane)) for lane in plan.distinct]
    points = [point for _, front in fronts for point in front]
    most_user = ceiling(max((point.user for point in points), default=1))
    most_gpu = ceiling(max((point.gpu for point in points), default=1))
    frame = _Frame(most_user, most_gpu)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" {_FONT}>',
        '<rect width="100%" height="100%" fill="white"/>',
        *_heads(plan),
        *frame.axes(),
        *_target(plan, frame),
    ]
    for place, (lane, front) in enumerate(fronts):
        parts += _front(front, frame, COLOURS[place % 4], DASHES[place % 4])
        parts += _key(lane, plan, place)
    return "\n".join([*parts, "</svg>", ""])


class _Frame:
    """From figures to places."""

    def __init__(self, most_user: float, most_gpu: float) -> None:
        self.most_user, self.most_gpu = most_user, most_gpu

    def x(self, user: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * user / self.most_user

    def y(self, gpu: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * gpu / self.most_gpu

    def axes(self) -> Iterator[str]:
        bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
        for share in (0, 0.25, 0.5, 0.75, 1):
            x, y = self.x(share * self.most_user), self.y(share * self.most_gpu)
            yield f'<line x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="#dddddd"/>'
            gpu, user = f"{share * self.most_gpu:,.0f}", f"{share * self.most_user:,.0f}"
            yield f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{gpu}</text>'
            yield f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{user}</text>'
        yield f'<path d="M{LEFT} {TOP} V{bottom} H{right}" fill="none" stroke="black"/>'
        yield (
            f'<text x="{(LEFT + right) / 2}" y="{bottom + 38}" text-anchor="middle">'
            "tokens per second that a user sees</text>"
        )
        middle = (TOP + bottom) / 2
        yield (
            f'<text x="18" y="{middle}" text-anchor="middle" transform="rotate(-90 18 {middle})">'
            "tokens per second and GPU</text>"
        )


def _heads(plan: Plan) -> Iterator[str]:
    ask, shape = plan.ask, plan.checkpoint.shape
    title = f"{shape.architecture}, {shape.parameters / 1e9:.1f} B parameters, on {plan.spec.gpu_class}"
    yield f'<text x="{LEFT}" y="22" font-weight="bold" font-size="14">{escape(title)}</text>'
    asked = (
        f"{ask.prompt_tokens:,} tokens in, {ask.output_tokens:,} out, the first within {ask.ttft_s:g} s; "
        f"{plan.model.source}"
    )
    yield f'<text x="{LEFT}" y="42" fill="#555555">{escape(asked)}</text>'


def _target(plan: Plan, frame: _Frame) -> Iterator[str]:
    user = 1 / plan.ask.itl_s
    if user >= frame.most_user:
        return
    x = frame.x(user)
    yield (
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" stroke="#aa0000" '
        'stroke-dasharray="4 4"/>'
    )
    yield f'<text x="{x + 5:.1f}" y="{TOP + 12}" fill="#aa0000">target: {plan.ask.itl_s * 1e3:g} ms</text>'


def _front(front: Sequence[Point], frame: _Frame, colour: str, dash: str) -> Iterator[str]:
    places = " ".join(f"{frame.x(one.user):.1f},{frame.y(one.gpu):.1f}" for one in front)
    stroke = f'stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"'
    yield f'<polyline points="{places}" fill="none" {stroke}/>'
    for point in front:
        spec = point.option.spec
        told = (
            f"{spec.lane}: {label(point)}, {point.batch} requests at once, {point.user:.0f} tokens/s a user, "
            f"{point.gpu:,.0f} a GPU"
        )
        yield (
            f'<circle cx="{frame.x(point.user):.1f}" cy="{frame.y(point.gpu):.1f}" r="3.5" fill="{colour}">'
            f"<title>{escape(told)}</title></circle>"
        )


def _key(lane: LanePlan, plan: Plan, place: int) -> Iterator[str]:
    """Below the axes, a line each."""
    x, y = LEFT, HEIGHT - BOTTOM + 62 + place * 18
    colour, dash = COLOURS[place % 4], DASHES[place % 4]
    yield (
        f'<line x1="{x}" x2="{x + 34}" y1="{y - 4}" y2="{y - 4}" stroke="{colour}" stroke-width="2" '
        f'stroke-dasharray="{dash}"/>'
    )
    front = plan.front(lane)
    splits = f": {label(front[0])} to {label(front[-1])}" if front else ""
    yield f'<text x="{x + 42}" y="{y}">{escape(plan.name_of(lane) + splits)}</text>'


def label(point: Point) -> str:
    """Precision and split in a few characters: `fp8 TP2`, `bf16 TP4 PP2`."""
    spec = point.option.spec
    stages = f" PP{spec.pipeline_parallel}" if spec.pipeline_parallel != 1 else ""
    return f"{spec.precision} TP{spec.tensor_parallel}{stages}"


def ceiling(value: float) -> float:
    """The next round number of which a quarter is a short one, too."""
    scale = 10.0 ** math.floor(math.log10(value))
    steps = (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 4.8, 6, 8, 10)
    return next(step * scale for step in steps if step * scale >= value * (1 - 1e-9))
