"""Choice: which of the options for a profile, and which are worth a look at all. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from engine_builder.plan.options import Option
from router.goodput import Ask, load, most


def latency(options: Sequence[Option]) -> Option | None:
    """The fastest for one user of those that meet the targets with the fewest GPUs.

    More GPUs make it faster still, at a price that nobody has asked for. Where none meets the targets: the
    fastest of all. None: there are no options.
    """
    met = [one for one in options if one.at_targets is not None]
    if not met:
        return min(options, key=lambda one: (one.answer_s, one.spec.gpus), default=None)
    fewest = min(one.spec.gpus for one in met)
    return min((one for one in met if one.spec.gpus == fewest), key=lambda one: one.answer_s)


def throughput(options: Sequence[Option]) -> Option | None:
    """The most output tokens per GPU within the targets; where none meets them, as `latency`."""
    met = [one for one in options if one.at_targets is not None]
    if not met:
        return latency(options)
    return max(met, key=lambda one: (one.tokens_per_s_per_gpu, -one.spec.gpus))


def for_profile(profile: str, options: Sequence[Option]) -> Option | None:
    """`latency` chooses for one user, all others for throughput within their targets.

    Of the usual precisions, if one of these can be built at all.
    """
    usual = [one for one in options if one.usual] or options
    return latency(usual) if profile == "latency" else throughput(usual)


class Point(NamedTuple):
    """One load of one option."""

    user: float
    """Tokens per second that a user sees."""
    gpu: float
    """Tokens per second that a GPU makes."""
    batch: int
    option: Option


def front(options: Iterable[Option], ask: Ask) -> list[Point]:
    """Loads of which none is beaten in both; from the most per GPU to the most per user.

    Only those whose first token is in time.
    """
    points = [point for option in options for point in _points(option, ask)]
    best, kept = 0.0, []
    for point in sorted(points, key=lambda one: (-one.user, -one.gpu)):
        if point.gpu > best:
            best = point.gpu
            kept.append(point)
    return kept[::-1]


def _points(option: Option, ask: Ask) -> Iterable[Point]:
    limit = most(option.card, ask)
    batches = {1 << power for power in range(limit.bit_length())}
    if option.at_targets is not None:
        batches.add(option.at_targets.batch)
    for batch in sorted(batches):
        found = load(option.card, ask, batch)
        if found.ttft_s <= ask.ttft_s:
            tokens_per_s = found.requests_per_s * ask.output_tokens
            yield Point(1 / found.itl_s, tokens_per_s / option.spec.gpus, batch, option)
