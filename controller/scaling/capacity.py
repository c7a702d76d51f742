"""Capacity: how many requests per second one replica serves within its targets, by its card. Pure."""

from __future__ import annotations

import datetime
from typing import NamedTuple

from controller.desired import DEFAULT_CONCURRENCY
from model_registry.cards import GoodputCard
from model_registry.entities import Deployment
from model_registry.knobs import Knobs
from router.forecast import COMMON
from router.goodput import Ask, load, most, within
from router.targets import targets_of

COMMON_CARD = GoodputCard(
    source="roofline",
    gpu_class="unknown",
    date=datetime.date(2026, 1, 1),
    slots=DEFAULT_CONCURRENCY,
    **COMMON._asdict(),
)
"""Of an engine that nothing is said of: as forecasts begin."""
COMMON_PROMPT_TOKENS = 1000
COMMON_OUTPUT_TOKENS = 256
"""Of requests that nothing is known of yet."""


LEAST_WAIT = 0.25
"""Part of the target for the first token that requests may wait, however long their prompts take."""


class Lengths(NamedTuple):
    """Mean tokens of a group's requests."""

    prompt: float
    output: float


class Capacity(NamedTuple):
    """One replica's, at the most load that keeps the targets in the mean."""

    requests_per_s: float
    batch: int
    """Requests under way then."""
    prompt_token_s: float
    """The part of one replica's time that one token of a prompt takes."""
    output_token_s: float
    """And one of an answer."""
    wait_s: float
    """How long a request may wait and still get its first token in time."""
    attainable: bool
    """Whether the targets can be kept at all; if not, it is what the engine can compute."""

    @property
    def request_s(self) -> float:
        """The part of one replica's time that one request takes."""
        return 1 / self.requests_per_s

    def work_s(self, prompt_tokens: float, output_tokens: float) -> float:
        """What so many tokens take of one replica's time."""
        return prompt_tokens * self.prompt_token_s + output_tokens * self.output_token_s


def lengths_of(card: GoodputCard | None) -> Lengths:
    """What requests are taken to be like before any was seen."""
    if card is None or card.goodput is None:
        return Lengths(COMMON_PROMPT_TOKENS, COMMON_OUTPUT_TOKENS)
    return Lengths(card.goodput.prompt_tokens, card.goodput.output_tokens)


def capacity_of(deployment: Deployment, knobs: Knobs, lengths: Lengths) -> Capacity:
    """By the deployment's card, or a common engine's.

    A card whose goodput was measured counts as that says: its lines are scaled to meet it at its lengths.
    """
    card = deployment.card or COMMON_CARD
    if deployment.max_concurrency is not None and deployment.max_concurrency < card.slots:
        card = card.model_copy(update={"slots": deployment.max_concurrency})
    ttft_s, itl_s = (one.seconds for one in targets_of(deployment, knobs))
    ask = Ask(max(1, round(lengths.prompt)), max(1, round(lengths.output)), ttft_s, itl_s)
    best = within(card, ask)
    found = best or load(card, ask, max(1, most(card, ask)))
    part = _measured_part(card)
    step_s = card.step_base_s + card.step_per_request_s * found.batch
    alone_s = card.overhead_s + ask.prompt_tokens / card.prefill_tokens_per_s
    return Capacity(
        found.requests_per_s * part,
        found.batch,
        1 / (card.prefill_tokens_per_s * part),
        step_s / (found.batch * part),
        max(LEAST_WAIT * ttft_s, ttft_s - alone_s),
        best is not None,
    )


def _measured_part(card: GoodputCard) -> float:
    """What was measured beside what the card's lines say for the same requests."""
    measured = card.goodput
    if measured is None or not measured.requests_per_s or card.source != "measured":
        return 1.0
    by_lines = within(
        card, Ask(measured.prompt_tokens, measured.output_tokens, measured.ttft_s, measured.itl_s)
    )
    return 1.0 if by_lines is None else measured.requests_per_s / by_lines.requests_per_s
