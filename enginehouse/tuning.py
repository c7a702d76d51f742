"""Tuning: what `enginehouse tune` does on a live deployment, in bounded time and with everything put back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from time import monotonic
from typing import NamedTuple

from engine_builder.errors import BuilderError
from engine_builder.tuning import Budget, Done, Knob, Measured, Setting, Space, Trial, next_trial
from engine_builder.tuning.overrides import DELAYS_US, IN_FLIGHT, KNOBS, PARAMETERS, QUEUE_DELAY, checked
from enginehouse.carded import Subject, find
from enginehouse.connection import Connection
from enginehouse.errors import ApiError, CommandError
from enginehouse.measuring import ELSEWHERE, MOST_CLIENTS, load, loads, measure, stage
from enginehouse.measuring import Wanted as CardWanted
from enginehouse.timed_requests import TimedRequests
from enginehouse.tuned_deployment import (
    SettingFailedError,
    TunedDeployment,
    look,
    requests_of_others,
)
from enginehouse.tuning_journal import Journal
from model_registry.entities import Deployment
from router.replay.statistics import quantile

WARM_S = 30.0
"""How long a first answer may take after a change."""
CARD_SECONDS = 3.0
"""At least, for the card of the best setting."""
_DEFAULT = ("scheduler_policy", "chunked_context", IN_FLIGHT)
_DEFAULT_OF_GPUS = ("kv_fraction",)

Says = Callable[[str], None]
"""Takes what is being done."""


class Wanted(NamedTuple):
    """The command's options."""

    model: str
    deployment: str | None
    knobs: Mapping[str, Sequence[str]]
    """Values by knob; empty: those that fit the lane."""
    loads: tuple[int, ...]
    """Clients of one replica; empty: 1, 2, 4, ... up to its slots."""
    prompt_tokens: int
    output_tokens: int
    seconds: float
    """Of one measurement."""
    budget: Budget
    journal: Path
    resume: bool
    force: bool
    keep: bool
    gpu_class: str | None
    gpus: int


PUT_BACK = "everything is as it was"
"""What is said once it is."""


class Found(NamedTuple):
    """What came of it."""

    done: Done
    journal: Journal
    deployment: Deployment
    """With the card of the best setting."""


async def tune_deployment(connection: Connection, wanted: Wanted, says: Says) -> Found:
    """Search, measure the card of the best, put the original back. Raises CommandError.

    On any end, cancellation included, the deployment is as before; with `keep`, and no error, as the best is.
    """
    subject = await find(connection, wanted.model, wanted.deployment, wanted.gpu_class)
    tuned, journal = await _begin(connection, wanted, subject)
    keep = False
    try:
        done = await _search(connection, wanted, subject, tuned, journal, says)
        card = await _card(connection, wanted, subject, tuned, journal.space.start, done, says)
        keep = wanted.keep
    finally:
        if not keep:
            await asyncio.shield(tuned.restore())
            says(PUT_BACK)
    if keep:
        await tuned.finish()
    return Found(done, journal, card)


async def _begin(connection: Connection, wanted: Wanted, subject: Subject) -> tuple[TunedDeployment, Journal]:
    deployment, slots = subject.deployment, subject.endpoints[0].max_concurrency
    knobs = dict(wanted.knobs) or _fitting(subject, slots)
    tuned = await look(connection, deployment, subject.endpoints, list(knobs))
    try:
        space = Space(
            tuple(Knob(name, tuple(checked(name, one) for one in values)) for name, values in knobs.items()),
            tuned.start(list(knobs), slots),
            wanted.loads or tuple(loads(min(slots, MOST_CLIENTS))),
        )
    except BuilderError as error:
        raise CommandError(str(error), error.remedy) from error
    lengths = wanted.prompt_tokens, wanted.output_tokens
    journal = Journal(wanted.model, lengths, wanted.seconds, tuned.original, space, [])
    if wanted.resume:
        earlier = Journal.read(wanted.journal)
        if earlier._replace(history=[], original=journal.original) != journal:
            raise CommandError(
                f"{wanted.journal} is of another search: its model, lengths, seconds, knobs or loads differ",
                "give the same options as then, or begin anew without --resume",
            )
        journal = journal._replace(history=earlier.history)
    elif wanted.journal.exists():
        raise CommandError(
            f"{wanted.journal} exists already",
            "go on with it: --resume; or name another: --journal FILE",
        )
    if not wanted.force:
        others = await requests_of_others(tuned)
        if others:
            raise CommandError(
                f"others use {deployment.name} now: {others} requests are under way",
                "tune it when nobody does, or slow them down all the same: --force",
            )
    journal.write(wanted.journal)
    return tuned, journal


def _fitting(subject: Subject, slots: int) -> dict[str, Sequence[str]]:
    """The knobs that a lane has, each with values worth trying."""
    in_flight = sorted({max(1, slots // 4), max(1, slots // 2), slots})
    knobs: dict[str, Sequence[str]] = {}
    if subject.endpoints[0].lane != "openai-http":
        names = [*_DEFAULT[:-1], *(_DEFAULT_OF_GPUS if subject.gpu_class != "cpu" else ())]
        knobs = {name: PARAMETERS[name].choices for name in names}
        if subject.endpoints[0].lane not in {"tensorrt_llm", "ensemble", "tensorrt_llm_bls"}:
            knobs = {}
    return {**knobs, IN_FLIGHT: [str(one) for one in in_flight]}


def knobs_given(options: Sequence[str]) -> Mapping[str, Sequence[str]]:
    """Values by knob of `NAME=A,B` and of `NAME`, which has values of its own. Raises CommandError."""
    found: dict[str, Sequence[str]] = {}
    for option in options:
        name, _, text = option.partition("=")
        usual = DELAYS_US if name == QUEUE_DELAY else PARAMETERS[name].choices if name in PARAMETERS else ()
        values = tuple(one.strip() for one in text.split(",") if one.strip()) or usual
        if name not in KNOBS:
            raise CommandError(f"--knob {name}: there is no such knob", f"knobs: {', '.join(KNOBS)}")
        if not values:
            raise CommandError(f"--knob {name}: which values is missing", f"write --knob {name}=A,B,...")
        found[name] = values
    return found


async def _search(
    connection: Connection,
    wanted: Wanted,
    subject: Subject,
    tuned: TunedDeployment,
    journal: Journal,
    says: Says,
) -> Done:
    names = {one.name for one in subject.endpoints}
    requests = await TimedRequests(connection, subject.name, names, wanted.output_tokens).calibrate()
    in_force: Setting | None = journal.space.start
    while True:
        step = next_trial(journal.history, journal.space, wanted.budget)
        if isinstance(step, Done):
            return step
        best = max((one.goodput for one in journal.history), default=0.0)
        says(
            f"trial {len(journal.history) + 1}: {step.setting}; {step.clients} at once; "
            f"best so far {best:.3g}/s in time"
        )
        began_s = monotonic()
        try:
            if step.setting != in_force:
                in_force = None
                await tuned.set(step.setting)
                await _warm(requests, wanted.prompt_tokens)
                in_force = step.setting
            found = await _measured(requests, wanted, subject, step)
        except (SettingFailedError, ApiError) as error:
            found = Measured(step, 0.0, error=str(error))
        journal.history.append(found._replace(took_s=round(monotonic() - began_s, 3)))
        journal.write(wanted.journal)


async def _warm(requests: TimedRequests, prompt_tokens: int) -> None:
    """Until an answer comes from where it should."""
    until_s = monotonic() + WARM_S
    while True:
        try:
            if (await requests.ask(prompt_tokens)).here:
                return
        except ApiError as error:
            if monotonic() > until_s:
                raise SettingFailedError(f"no request is answered with it: {error.message}") from error
        if monotonic() > until_s:
            raise CommandError(*ELSEWHERE)


async def _measured(requests: TimedRequests, wanted: Wanted, subject: Subject, trial: Trial) -> Measured:
    clients = trial.clients * len(subject.endpoints)
    seconds = wanted.seconds * trial.weight
    timed = await load(requests, clients, wanted.prompt_tokens, seconds, lambda _: None)
    seen = stage(trial.clients, timed)
    if seen is None:
        raise CommandError(*ELSEWHERE)
    ttfts = sorted(one.ttft_s for one in seen.samples)
    tokens = sum(one.output_tokens for one in seen.samples) / len(seen.samples)
    return Measured(
        trial,
        0.0,
        len(seen.samples),
        seen.requests_per_s,
        seen.requests_per_s * tokens,
        seen.met(subject.knobs.ttft_target_s, subject.knobs.itl_target_s),
        median(ttfts),
        quantile(ttfts, 0.99),
        median(one.itl_s for one in seen.samples),
    )


async def _card(
    connection: Connection,
    wanted: Wanted,
    subject: Subject,
    tuned: TunedDeployment,
    start: Setting,
    done: Done,
    says: Says,
) -> Deployment:
    """The original deployment with the best setting's card, and with what of it stands in a Deployment."""
    says(f"the card of {done.best}")
    await tuned.set(done.best)
    card_wanted = CardWanted(
        wanted.model,
        wanted.deployment,
        wanted.prompt_tokens,
        wanted.output_tokens,
        None,
        max(CARD_SECONDS, 4 * wanted.seconds),
        wanted.gpu_class or subject.gpu_class,
        wanted.gpus,
    )
    measured = await measure(connection, card_wanted, lambda what, _: says(f"its card: {what}"))
    if measured.card is None:
        raise CommandError(f"no card of {measured.name} came of measuring it")
    card = measured.card.model_copy(
        update={"about": f"With {done.best}. {measured.card.about or ''}"[:500].strip()}
    )
    changed = done.best.differs_from(start)
    in_flight = {"max_concurrency": int(changed[IN_FLIGHT])} if IN_FLIGHT in changed else {}
    return subject.deployment.model_copy(update={"card": card, **in_flight})


async def restore_from(connection: Connection, journal: Path) -> str:
    """Put a deployment back as a journal says that it was; its name. Raises CommandError."""
    original = Journal.read(journal).original
    await TunedDeployment(connection, original).restore_after_all()
    return original.deployment.name
