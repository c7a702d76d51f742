"""Measured: a goodput card out of requests that were timed under known load. Pure.

Prefill comes from requests that were alone, steps and goodput from stages, in each of which so many clients
ask again as soon as they are answered: its rate is its clients over the mean time of a request. Steps have
stages of their own, with short prompts: what longer ones take of the time would be counted as steps.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from statistics import mean, median
from typing import NamedTuple

from model_registry.cards import GoodputCard
from router.goodput import Ask, Fit, figures, fit, goodput

_LEAST_S = 1e-6
"""Of what cannot be told from nothing, such as the prefill of an engine that answers from memory."""


class Sample(NamedTuple):
    """One streamed answer."""

    prompt_tokens: int
    output_tokens: int
    ttft_s: float
    took_s: float
    """From its dispatch to its last token."""

    @property
    def itl_s(self) -> float:
        """Mean time between two of its tokens."""
        return max(_LEAST_S, self.took_s - self.ttft_s) / max(1, self.output_tokens - 1)


class Stage(NamedTuple):
    """A time of constant load on one replica."""

    clients: float
    samples: Sequence[Sample]

    @property
    def requests_per_s(self) -> float:
        """That end."""
        return self.clients / mean(one.took_s for one in self.samples)

    @property
    def batch(self) -> float:
        """Requests in decode, in the mean."""
        return self.requests_per_s * mean(one.took_s - one.ttft_s for one in self.samples)

    def met(self, ttft_s: float, itl_s: float) -> float:
        """Share of the requests that got both."""
        return mean(one.ttft_s <= ttft_s and one.itl_s <= itl_s for one in self.samples)


class Replica(NamedTuple):
    """What is known of it without measuring."""

    gpu_class: str
    gpus: int
    slots: int
    kv_tokens: int | None


def prefill(alone: Iterable[Sample]) -> Fit:
    """Seconds to a first token, over prompt tokens: through the median of each length."""
    by_length: dict[int, list[float]] = {}
    for one in alone:
        by_length.setdefault(one.prompt_tokens, []).append(one.ttft_s)
    base, slope = fit([(length, median(times)) for length, times in by_length.items()])
    return Fit(base, max(slope, _LEAST_S))


def steps(stages: Iterable[Stage]) -> Fit:
    """Seconds of a decode step, over its batch; of stages whose prompts were next to nothing."""
    points = [(max(1.0, stage.batch), median(one.itl_s for one in stage.samples)) for stage in stages]
    base, slope = fit(points)
    return Fit(max(base, _LEAST_S), slope)


def card(
    alone: Sequence[Sample],
    decoding: Sequence[Stage],
    stages: Sequence[Stage],
    replica: Replica,
    targets: tuple[float, float],
    date: datetime.date,
) -> GoodputCard:
    """The card, its steps from `decoding` and its goodput from `stages`.

    `targets`: time to first token and between tokens, in seconds.
    """
    overhead_s, token_s = prefill(alone)
    base_s, each_s = steps(decoding)
    best = max(stages, key=lambda stage: stage.requests_per_s * stage.met(*targets))
    prompt_tokens = round(mean(one.prompt_tokens for one in best.samples))
    output_tokens = round(mean(one.output_tokens for one in best.samples))
    timed = len(alone) + sum(len(stage.samples) for stage in (*decoding, *stages))
    return GoodputCard(
        source="measured",
        **replica._asdict(),
        date=date,
        about=f"Through the gateway: {timed} requests, alone and from {stages[0].clients:.0f} to "
        f"{stages[-1].clients:.0f} at once; the most was at {best.clients:.0f}.",
        prefill_tokens_per_s=max(1.0, figures(1 / token_s)),
        overhead_s=figures(overhead_s),
        step_s=figures(base_s + each_s),
        step_per_request_s=figures(each_s),
        goodput=goodput(
            Ask(prompt_tokens, max(1, output_tokens), *targets),
            best.requests_per_s * best.met(*targets),
        ),
    )
