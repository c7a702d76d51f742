"""Verdict: what a set of comparisons says about an engine, and how sure that is. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

from engine_builder.errors import BuilderError
from engine_builder.quality.comparison import Compared
from router.replay.statistics import interval

_Z_ONE_SIDED = 1.6449
"""Of 95 %: a drop is looked for in one direction."""


class Thresholds(NamedTuple):
    """What an engine must keep. None: not asked for."""

    max_drop: float = 0.005
    """Of accuracy, as a share of the prompts with known answers."""
    min_agreement: float | None = None
    max_kl: float | None = None


class Range(NamedTuple):
    """A value, and where the true one is by 95 %."""

    value: float
    low: float
    high: float


class Summary(NamedTuple):
    """All prompts together."""

    prompts: int
    same: float
    """Share of whole answers that are equal."""
    agreement: Range
    by_tokens: bool
    """Agreement is of tokens everywhere; else of words somewhere."""
    answered: int
    """Prompts whose right answer is known."""
    baseline_accuracy: float | None
    candidate_accuracy: float | None
    drop: Range | None
    """Of accuracy; `low` and `high` are one-sided limits of 95 % each."""
    lost: int
    """Prompts that the baseline had right and the candidate has not."""
    gained: int
    mean_kl: float | None
    mean_log_prob_drop: float | None


class Verdict(NamedTuple):
    """Whether the engine passes."""

    passed: bool
    sure: bool
    """Chance does not explain it; a small set can seldom be sure."""
    reasons: tuple[str, ...]


def summarise(found: Sequence[Compared]) -> Summary:
    """Of at least one comparison."""
    mean, half = interval([one.agreement for one in found])
    half = min(half, 1.0)
    judged = [one for one in found if one.baseline_right is not None]
    lost = sum(bool(one.baseline_right) and not one.candidate_right for one in judged)
    gained = sum(bool(one.candidate_right) and not one.baseline_right for one in judged)
    alike = all(one.by_tokens for one in found)  # distributions over different tokens cannot be compared
    kl = [value for one in found for value in one.kl if alike]
    drops = [value for one in found for value in one.log_prob_drop if alike]
    return Summary(
        len(found),
        fmean(one.same for one in found),
        Range(mean, max(0.0, mean - half), min(1.0, mean + half)),
        alike,
        len(judged),
        fmean(bool(one.baseline_right) for one in judged) if judged else None,
        fmean(bool(one.candidate_right) for one in judged) if judged else None,
        paired_drop(len(judged), lost, gained) if judged else None,
        lost,
        gained,
        fmean(kl) if kl else None,
        fmean(drops) if drops else None,
    )


def paired_drop(prompts: int, lost: int, gained: int) -> Range:
    """Drop of accuracy between answers to the same prompts.

    Wald's interval with half a prompt added to each kind of pair (Agresti and Min, Statistics in Medicine 24,
    2005), which stays honest where hardly any pair differs.
    """
    whole = prompts + 2
    b, c = lost + 0.5, gained + 0.5
    centre = (b - c) / whole
    half = _Z_ONE_SIDED * math.sqrt(b + c - (b - c) ** 2 / whole) / whole
    return Range((lost - gained) / prompts, centre - half, centre + half)


def enough(max_drop: float) -> int:
    """Prompts from which on a set in which no pair differs rules out a larger drop."""
    return math.ceil(_Z_ONE_SIDED / max_drop) - 2 if max_drop > 0 else 0


def judge(summary: Summary, wanted: Thresholds) -> Verdict:
    """Raises BuilderError where there is nothing to judge by."""
    if summary.drop is None and wanted.min_agreement is None and wanted.max_kl is None:
        raise BuilderError(
            "no prompt has a known answer, so that accuracy cannot be judged",
            "add `answer` to prompts, or judge by --min-agreement or --max-kl",
        )
    failed: list[str] = []
    unsure: list[str] = []
    if summary.drop is not None:
        _judge_accuracy(summary, summary.drop, wanted.max_drop, failed, unsure)
    if wanted.min_agreement is not None and summary.agreement.value < wanted.min_agreement:
        failed.append(f"greedy agreement {summary.agreement.value:.1%} is below {wanted.min_agreement:.1%}")
        if summary.agreement.high >= wanted.min_agreement:
            unsure.append("its interval reaches the threshold")
    if wanted.max_kl is not None:
        if summary.mean_kl is None:
            raise BuilderError(
                "--max-kl: a lane of the two tells no log-probabilities", "leave it out, or ask another lane"
            )
        if summary.mean_kl > wanted.max_kl:
            failed.append(f"mean KL {summary.mean_kl:.4g} is above {wanted.max_kl:g}")
    return Verdict(not failed, not unsure, (*failed, *unsure))


def _judge_accuracy(summary: Summary, drop: Range, most: float, failed: list[str], unsure: list[str]) -> None:
    if drop.value > most:
        failed.append(f"accuracy fell by {drop.value:.1%}, more than {most:.2%}")
        if drop.low <= most:
            unsure.append(
                f"chance could explain it: {summary.lost} of {summary.answered} prompts lost and "
                f"{summary.gained} gained; ask more of them"
            )
    elif drop.high > most:
        needed = enough(most)
        more = f"; {needed} prompts or more can" if needed > summary.answered else ""
        unsure.append(
            f"{summary.answered} prompts are too few to rule out a drop above {most:.2%}: "
            f"up to {drop.high:.1%} would fit what was seen{more}"
        )
