"""Measuring a goodput card: what `enginehouse card measure` does, in bounded time."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Callable, Sequence
from itertools import count
from time import monotonic
from typing import NamedTuple

from enginehouse.carded import Subject, find
from enginehouse.connection import Connection
from enginehouse.errors import CommandError
from enginehouse.timed_requests import Timed, TimedRequests
from model_registry.cards import GoodputCard
from model_registry.entities import Deployment
from router.measured import Replica, Sample, Stage, card

ALONE_SHARE = 0.3
"""Of the time, for requests that are alone."""
ALONE_MOST = 8
"""Requests of one length."""
MOST_CLIENTS = 512
SHORT_PROMPT = 32
"""Tokens, or what the chat template alone has."""
MET_LEAST = 0.5
"""A stage in which a smaller share meets the targets is the last: more clients only make it worse."""

ELSEWHERE = "other endpoints served what should have been measured", "see why: `enginehouse explain`"

Progress = Callable[[str, float], None]
"""Takes what is being done, and the share of the time that has passed."""


class Wanted(NamedTuple):
    """The command's options."""

    model: str
    """With `:profile` where it is not the model's default."""
    deployment: str | None
    prompt_tokens: int
    output_tokens: int
    longest_prompt: int | None
    """Default: half of the model's context, at most 8,192 tokens."""
    seconds: float
    gpu_class: str | None
    gpus: int


async def measure(connection: Connection, wanted: Wanted, progress: Progress) -> Deployment:
    """The deployment, with its card. Raises CommandError where it cannot be measured."""
    subject = await find(connection, wanted.model, wanted.deployment, wanted.gpu_class)
    longest = wanted.longest_prompt or min(8192, subject.context_length // 2)
    if max(longest, wanted.prompt_tokens) + wanted.output_tokens > subject.context_length:
        raise CommandError(
            f"prompts of {max(longest, wanted.prompt_tokens)} and answers of {wanted.output_tokens} tokens "
            f"are more than the {subject.context_length} that {subject.name} takes",
            "give smaller ones: --prompt-tokens, --longest-prompt, --output-tokens",
        )
    names = {one.name for one in subject.endpoints}
    requests = await TimedRequests(connection, subject.name, names, wanted.output_tokens).calibrate()
    clock = _Clock(wanted.seconds, progress)
    alone = await _alone(requests, longest, clock)
    decoding, stages = await _stages(requests, wanted, subject, clock)
    made = card(
        alone,
        decoding,
        stages,
        Replica(
            subject.gpu_class,
            wanted.gpus,
            subject.endpoints[0].max_concurrency,
            subject.endpoints[0].server_schema.get("kv_tokens"),
        ),
        (subject.knobs.ttft_target_s, subject.knobs.itl_target_s),
        datetime.datetime.now(datetime.UTC).date(),
    )
    return subject.deployment.model_copy(update={"card": made})


class _Clock:
    """How much of the time has passed."""

    def __init__(self, seconds: float, progress: Progress) -> None:
        self._began_s = monotonic()
        self._seconds = seconds
        self._progress = progress

    @property
    def left_s(self) -> float:
        return self._seconds - (monotonic() - self._began_s)

    def passed(self, share: float) -> bool:
        return 1 - self.left_s / self._seconds >= share

    def says(self, what: str) -> None:
        self._progress(what, min(1.0, 1 - self.left_s / self._seconds))


async def _alone(requests: TimedRequests, longest: int, clock: _Clock) -> list[Sample]:
    """Requests of four lengths in turn, one at a time: at least two of each."""
    lengths = [max(32, longest * part // 8) for part in (1, 2, 4, 8)]
    found: dict[int, list[Sample]] = {length: [] for length in lengths}
    for turn in range(ALONE_MOST):
        if turn >= 2 and clock.passed(ALONE_SHARE):
            break
        for length in found:
            clock.says(f"first tokens: one prompt of {length} tokens")
            sample, here = await requests.ask(length)
            if here:
                found[length].append(sample)
    if not all(found.values()):
        raise CommandError(*ELSEWHERE)
    # One length is one point, though prompts of random words differ by a few tokens.
    return [
        one._replace(prompt_tokens=round(sum(each.prompt_tokens for each in ones) / len(ones)))
        for ones in found.values()
        for one in ones
    ]


def loads(slots: int) -> list[int]:
    """Twice as many clients each time, up to the slots."""
    return [2**step for step in range(slots.bit_length()) if 2**step < slots] + [slots]


async def _stages(
    requests: TimedRequests, wanted: Wanted, subject: Subject, clock: _Clock
) -> tuple[list[Stage], list[Stage]]:
    """Twice as many clients each time, up to the slots, to the end of the time or past the targets.

    Each number first with short prompts, for steps, and then with the usual ones.
    """
    slots = min(MOST_CLIENTS, subject.endpoints[0].max_concurrency)
    ladder = loads(slots)
    targets = subject.knobs.ttft_target_s, subject.knobs.itl_target_s
    decoding: list[Stage] = []
    stages: list[Stage] = []
    for place, clients in enumerate(ladder):
        for found, prompt_tokens, rest in ((decoding, SHORT_PROMPT, 2), (stages, wanted.prompt_tokens, 1)):
            seconds = max(0.5, clock.left_s / (2 * (len(ladder) - place - 1) + rest))
            timed = await load(requests, clients * len(subject.endpoints), prompt_tokens, seconds, clock.says)
            if (seen := stage(clients, timed)) is not None:
                found.append(seen)
        if not stages or not decoding:
            raise CommandError(*ELSEWHERE)
        if stages[-1].met(*targets) < MET_LEAST or (place > 0 and clock.left_s <= 0):
            break
    return decoding, stages


def stage(clients: int, timed: Sequence[Timed]) -> Stage | None:
    """What one replica saw of it; what went elsewhere, as spill-over does, was no client of its meanwhile."""
    samples = [one.sample for one in timed if one.here]
    if not samples:
        return None
    share = sum(one.took_s for one in samples) / sum(one.sample.took_s for one in timed)
    return Stage(clients * share, samples)


async def load(
    requests: TimedRequests, clients: int, prompt_tokens: int, seconds: float, says: Callable[[str], None]
) -> list[Timed]:
    """What clients saw that ask again as soon as they are answered. Each is answered once at least."""
    until_s = monotonic() + seconds
    timed: list[Timed] = []

    async def client() -> None:
        for turn in count():
            if turn and monotonic() >= until_s:
                return
            timed.append(await requests.ask(prompt_tokens))
            says(f"{clients} at once, prompts of {prompt_tokens} tokens")

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(client())
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None  # the first; it has ended the others
    return timed


def manifest_note(made: GoodputCard) -> str:
    """What a reader of the card should know, in one line."""
    found = made.goodput
    if found is None or found.requests_per_s == 0:
        return "no request met the profile's targets, however few there were at once"
    return (
        f"{found.requests_per_s:.3g} requests/s of {found.prompt_tokens} + {found.output_tokens} tokens "
        f"within {found.ttft_s:g} s and {found.itl_s:g} s"
    )
