"""Load testing: what `enginehouse loadtest` does: one target or two in turns, at every rate."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from engine_builder.loadtest.outcomes import Outcome, Run, Targets
from engine_builder.loadtest.plan import Arrivals, Lengths, Planned, of_trace, rounds, synthetic
from engine_builder.loadtest.regression import Worse, worse
from enginehouse import aiperf
from enginehouse.errors import CommandError
from enginehouse.load_client import LoadClient
from enginehouse.loadtest_files import Level, Result, now
from enginehouse.targets import Target, knobs, tokenizer_folder
from router.replay.workload import BUNDLED, TraceError, bundled, read

Driver = Literal["auto", "own", "aiperf"]
AIPERF_ROUNDS = 2
"""It takes many seconds to start."""

Says = Callable[[str, float], None]
"""Takes what is being done, and the share that is done."""
Send = Callable[[Sequence[Planned], float, Callable[[str], None]], Awaitable[Run]]
"""Sends a plan of so many seconds."""


class Wanted(NamedTuple):
    """The command's options."""

    targets: tuple[Target, ...]
    """One, or two to compare."""
    rates: tuple[float, ...]
    """Requests per second. Empty: a trace's own."""
    seconds: float
    """Of each rate and target."""
    arrivals: Arrivals
    prompts: Lengths
    outputs: Lengths
    trace: str | None
    """A file, or the name of a bundled one."""
    most_tokens: int | None
    """Of a trace's requests: longer ones are left out."""
    ttft_s: float | None
    itl_s: float | None
    concurrency: int
    driver: Driver
    tokenizer: str | None
    rounds: int
    seed: int


async def load_test(wanted: Wanted, says: Says) -> list[Result]:
    """A result for each target. Raises CommandError."""
    plans = _plans(wanted)
    goals = await _goals(wanted)
    tokenizers = await _tokenizers(wanted)
    turns = 1
    if len(wanted.targets) > 1:
        turns = wanted.rounds if tokenizers is None else AIPERF_ROUNDS
    async with AsyncExitStack() as stack:
        if tokenizers is None:
            senders = [await _own(stack, target, wanted.concurrency) for target in wanted.targets]
        else:
            senders = [partial(_by_aiperf, *pair) for pair in zip(wanted.targets, tokenizers, strict=True)]
        runs = await _in_turns(wanted, plans, senders, turns, says)
    return [
        Result(
            target.name,
            "own client" if tokenizers is None else aiperf.version(),
            now(),
            goals,
            _workload(wanted),
            [Level(rate, run) for rate, run in of_target.items()],
        )
        for target, of_target in zip(wanted.targets, runs, strict=True)
    ]


async def _in_turns(
    wanted: Wanted, plans: Mapping[float, Sequence[Planned]], senders: Sequence[Send], turns: int, says: Says
) -> list[dict[float, Run]]:
    """Of each target, its run at every rate. Both get the same requests."""
    found: list[dict[float, Run]] = [{} for _ in senders]
    whole, done = len(plans) * turns * len(senders), 0
    part_s = wanted.seconds / turns
    for rate, plan in plans.items():
        parts: list[list[Run]] = [[] for _ in senders]
        for turn, part in enumerate(rounds(plan, turns, wanted.seconds)):
            numbers = range(len(senders))
            # The other first every second time: what drifts hits both alike.
            for number in numbers if turn % 2 == 0 else reversed(numbers):
                head = f"{wanted.targets[number].name} at {rate:.3g}/s: "
                says(head, done / whole)
                told = partial(_prefixed, says, head, done / whole)
                parts[number].append(await senders[number](part, part_s, told))
                done += 1
        for number, runs in enumerate(parts):
            found[number][rate] = joined(runs, part_s)
    return found


def _prefixed(says: Says, head: str, share: float, what: str) -> None:
    says(head + what, share)


def joined(runs: Sequence[Run], part_s: float) -> Run:
    """The parts as one run, each after the one before."""
    outcomes: list[Outcome] = []
    for number, run in enumerate(runs):
        outcomes += [one._replace(at_s=one.at_s + number * part_s) for one in run.outcomes]
    return Run(outcomes, sum(run.span_s for run in runs))


async def _own(stack: AsyncExitStack, target: Target, concurrency: int) -> Send:
    client = await stack.enter_async_context(LoadClient(target, concurrency))
    await client.calibrate()

    async def send(plan: Sequence[Planned], seconds: float, says: Callable[[str], None]) -> Run:
        def told(sent: int, under_way: int, errors: int) -> None:
            says(f"{sent} of {len(plan)} sent, {under_way} under way, {errors} errors")

        return await client.run(plan, seconds, told)

    return send


async def _by_aiperf(
    target: Target,
    tokenizer: str,
    plan: Sequence[Planned],
    seconds: float,
    says: Callable[[str], None],
) -> Run:
    return await aiperf.run(target, plan, seconds, tokenizer, says)


async def _tokenizers(wanted: Wanted) -> list[str] | None:
    """One for each target, for aiperf, which makes prompts by it; None: our own client sends."""
    if wanted.driver == "own":
        return None
    found = [wanted.tokenizer or await tokenizer_folder(one) for one in wanted.targets]
    known = [one for one in found if one is not None]
    if aiperf.installed() is not None and len(known) == len(found):
        return known
    if wanted.driver == "auto":
        return None
    if aiperf.installed() is None:
        raise CommandError("--driver aiperf: it is not installed", "pip install aiperf, or --driver own")
    raise CommandError(
        "--driver aiperf: it makes prompts by the model's tokenizer, and none is known",
        "name its folder: --tokenizer DIR",
    )


async def _goals(wanted: Wanted) -> Targets:
    if wanted.ttft_s is not None and wanted.itl_s is not None:
        return Targets(wanted.ttft_s, wanted.itl_s)
    profile = await knobs(wanted.targets[0])
    return Targets(wanted.ttft_s or profile.ttft_target_s, wanted.itl_s or profile.itl_target_s)


def _plans(wanted: Wanted) -> dict[float, list[Planned]]:
    """By rate. Raises CommandError where one would send nothing."""
    found: dict[float, list[Planned]] = {}
    if wanted.trace is None:
        for rate in wanted.rates or (1.0,):
            found[rate] = synthetic(
                rate, wanted.seconds, wanted.arrivals, wanted.prompts, wanted.outputs, wanted.seed
            )
    else:
        try:
            trace = bundled(wanted.trace) if wanted.trace in BUNDLED else read(Path(wanted.trace))
        except TraceError as error:
            raise CommandError(
                f"--trace {error}", f"or take one that comes along: {', '.join(BUNDLED)}"
            ) from error
        for rate in wanted.rates or (trace.rate,):
            found[rate] = of_trace(trace, rate, wanted.seconds, wanted.most_tokens, wanted.seed)
    for rate, plan in found.items():
        if not plan:
            raise CommandError(
                f"at {rate:g} requests/s nothing would be sent in {wanted.seconds:g} s",
                "give more --seconds or a higher --rate"
                + (", or let longer requests in: --max-tokens" if wanted.trace else ""),
            )
    return found


def _workload(wanted: Wanted) -> str:
    if wanted.trace is not None:
        limit = "" if wanted.most_tokens is None else f", up to {wanted.most_tokens} tokens"
        return f"trace {Path(wanted.trace).name}{limit}, seed {wanted.seed}"
    return f"{wanted.arrivals}, prompts {wanted.prompts}, answers {wanted.outputs}, seed {wanted.seed}"


def regressions(result: Result, before: Result, most: float) -> list[tuple[float, Worse]]:
    """What got worse, with the rate. Raises CommandError where the two cannot be compared."""
    if result.workload != before.workload:
        raise CommandError(
            f"--baseline was measured with other requests: {before.workload}; these are {result.workload}",
            "give the same lengths, arrivals, trace and seed as then",
        )
    kept = {level.rate: level.run for level in before.levels}
    common = [level for level in result.levels if level.rate in kept]
    if not common:
        rates = ", ".join(f"{rate:g}" for rate in kept)
        raise CommandError("--baseline has none of these rates", f"give one that it has: --rate {rates}")
    return [
        (level.rate, one)
        for level in common
        for one in worse(level.run, kept[level.rate], before.targets, most)
    ]
