"""Counts: what came of a group's requests between two looks, from counts that only grow. Pure."""

from __future__ import annotations

from typing import NamedTuple

from controller.scaling.capacity import Lengths
from model_registry.demand.demand import GroupDemand

REMEMBERED = 500.0
"""Requests that mean lengths are of; the latest count most."""
GUESSED = 4.0
"""Requests that the guess counts as."""


class Counts(NamedTuple):
    """As of one look, and the lengths learned until then."""

    group: GroupDemand | None
    """None: reports were missing since, so that what has come can only be told from the next look on."""
    lengths: Lengths
    prompts: float = GUESSED
    """How many requests the mean of prompts stands for."""
    outputs: float = GUESSED


class Since(NamedTuple):
    """What has come since the look before."""

    arrivals: int
    prompt_tokens: int
    answered: int
    """Requests that got a first token, or were refused for want of capacity."""
    late: int
    """Those that got it later than their target, or not at all."""
    paced: int
    """Answers that have ended and whose time between tokens is known."""
    slow: int
    """Those of them for which it was above its target."""
    refused: int
    """Those that were refused."""


def follow(before: Counts | None, group: GroupDemand, guess: Lengths) -> tuple[Counts, Since | None]:
    """The counts from now on, and what has come; None where there is nothing to compare with.

    Counts that have fallen tell nothing of what has come.
    """
    if before is None:
        return Counts(group, guess), None
    if before.group is None:
        return before._replace(group=group), None
    arrivals, prompts = _more(before.group, group, "arrivals"), _more(before.group, group, "prompt_tokens")
    ended, outputs = _more(before.group, group, "ended"), _more(before.group, group, "output_tokens")
    stand_for = min(REMEMBERED, before.prompts + arrivals), min(REMEMBERED, before.outputs + ended)
    lengths = Lengths(
        _moved(before.lengths.prompt, prompts, arrivals, stand_for[0]),
        _moved(before.lengths.output, outputs, ended, stand_for[1]),
    )
    answered, late = _more(before.group, group, "first_tokens"), _more(before.group, group, "ttft_missed")
    refused = _more(before.group, group, "refused")
    paced, slow = _more(before.group, group, "paced"), _more(before.group, group, "itl_missed")
    since = Since(arrivals, prompts, answered + refused, late + refused, paced, slow, refused)
    return Counts(group, lengths, *stand_for), since


def _more(before: GroupDemand, now: GroupDemand, name: str) -> int:
    earlier: int = getattr(before, name)
    later: int = getattr(now, name)
    return max(0, later - earlier)


def _moved(mean: float, tokens: int, requests: int, of: float) -> float:
    if not requests:
        return mean
    return mean + min(1.0, requests / of) * (tokens / requests - mean)
