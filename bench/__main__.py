"""`python -m bench`: the gateway beside a direct call, a naive relay and installed peers, in one run."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from bench import campaign, extras, report, tokenizer, triton_schema
from bench.build import BenchError
from bench.campaign import concluded
from bench.gateway_under_test import TRITON_MODEL, House, openai_objects, triton_objects
from bench.load import Target
from bench.processes import Cores
from bench.scenarios import SCENARIOS, Figures, Scale, Setting, warm
from bench.stub import Stub
from bench.subjects import Subject, Surroundings, subjects
from model_registry.entities import ServerRef

OUT = Path(__file__).parent / "out"
ANSWER_TOKENS = {"openai": 100, "triton": 1}


def main() -> int:
    """Run, show, write; 0 when every bar is met, 1 when one is missed, 2 when nothing could be measured."""
    options, console = arguments(), Console()

    def run() -> dict[str, Any]:
        measured = measure(options, console)
        report.show(measured, console)
        result = report.result(measured)
        write(options.out, report.markdown(measured), result, console)
        return result

    return concluded(run)


def arguments() -> argparse.Namespace:
    parser = campaign.parser(__doc__, "python -m bench --quick --only openai,gateway,naive")
    parser.add_argument("--quick", action="store_true", help="short: for a look, not for figures")
    parser.add_argument(
        "--reps", type=int, default=None, help="repetitions, interleaved (default 3; quick 1)"
    )
    parser.add_argument(
        "--only",
        default="",
        help="comma list of lanes (openai, triton), subjects (direct, naive, gateway …), scenarios "
        f"({', '.join(SCENARIOS)}) and further benchmarks ({', '.join(extras.EXTRAS)}); "
        "of each sort, what is not named is left out",
    )
    parser.add_argument(
        "--peers", default="", help="comma list of folders with programs of peers, besides PATH"
    )
    parser.add_argument(
        "--sample-ratio", type=float, default=None, help="share of requests traced (default: ours)"
    )
    parser.add_argument(
        "--out", type=Path, default=None, help="markdown file; a .json beside it (default bench/out/)"
    )
    return parser.parse_args()


class Chosen(NamedTuple):
    """What `--only` leaves."""

    subjects: list[Subject]
    scenarios: list[str]
    extras: list[str]


def chosen(only: str, peers: list[Path]) -> Chosen:
    """Everything that one of the words names; raises BenchError for a word that names nothing."""
    words = {word.strip() for word in only.split(",") if word.strip()}
    every = subjects(peers)
    lanes, names = {subject.lane for subject in every}, {subject.name for subject in every}
    if unknown := words - lanes - names - SCENARIOS.keys() - extras.EXTRAS.keys():
        known = ", ".join(sorted({*lanes, *names, *SCENARIOS, *extras.EXTRAS}))
        raise BenchError(f"--only names {', '.join(sorted(unknown))}; known are {known}")
    kept = [
        subject
        for subject in every
        if (subject.lane in words or not words & lanes) and (subject.name in words or not words & names)
    ]
    further = [name for name in extras.EXTRAS if name in words or not words]
    if words and words <= extras.EXTRAS.keys():
        return Chosen([], [], further)
    return Chosen(
        kept, [name for name in SCENARIOS if name in words or not words & SCENARIOS.keys()], further
    )


def measure(options: argparse.Namespace, console: Console) -> report.Measured:
    """All repetitions of all subjects, each freshly started, then the further benchmarks."""
    peers = [Path(folder) for folder in options.peers.split(",") if folder]
    rows, scenarios, further = chosen(options.only, peers)
    scale = Scale.quick() if options.quick else Scale()
    repetitions = options.reps or (1 if options.quick else 3)
    measured = report.Measured()
    if rows:
        measure_rows(rows, scenarios, scale, repetitions, options.sample_ratio, console, measured)
    for name in further:
        with console.status(f"{name} …"):
            try:
                measured.extra[name] = extras.run(name, options.quick)
            except BenchError as error:
                measured.failures.append(f"{name}: {error}")
    return measured


def measure_rows(
    rows: list[Subject],
    scenarios: list[str],
    scale: Scale,
    repetitions: int,
    sample_ratio: float | None,
    console: Console,
    measured: report.Measured,
) -> None:
    """Interleaved: of each repetition and lane, one scenario of every subject, then the next scenario.

    A machine's mood lasts longer than a scenario, so what is compared is measured one after the other.
    """
    with surroundings(sample_ratio) as around, progress(console) as bar:
        task = bar.add_task("", total=repetitions * len(rows) * len(scenarios))
        for repetition in range(repetitions):
            for lane in dict.fromkeys(subject.lane for subject in rows):
                title = f"{lane} · {repetition + 1}/{repetitions}"
                side_by_side = [subject for subject in rows if subject.lane == lane]
                measure_lane(side_by_side, around, scale, scenarios, measured, bar, task, title)


def measure_lane(
    rows: list[Subject],
    around: Surroundings,
    scale: Scale,
    scenarios: list[str],
    measured: report.Measured,
    bar: Progress,
    task: TaskID,
    title: str,
) -> None:
    """One repetition of the subjects of one lane, freshly started; who is not asked is idle."""
    with ExitStack() as running:
        settings: dict[str, Setting] = {}
        for subject in rows:
            bar.update(task, description=f"{title} · {subject.name} starts")
            try:
                target = beside(running.enter_context(subject.running(around)), around.stub)
                settings[subject.name] = Setting(
                    around.cores, around.stub, target, scale, ANSWER_TOKENS[subject.lane]
                )
                warm(settings[subject.name])
            except BenchError as error:  # the others are still worth measuring
                settings.pop(subject.name, None)
                measured.failures.append(f"{title} · {subject.name}: {error}")
        figures: dict[str, Figures] = {name: {} for name in settings}
        for scenario in scenarios:
            for name in list(settings):
                bar.update(task, description=f"{title} · {name} · {scenario}")
                try:
                    figures[name] |= SCENARIOS[scenario](settings[name])
                except BenchError as error:
                    del settings[name]
                    measured.failures.append(f"{title} · {name} · {scenario}: {error}")
                bar.advance(task)
        for name, setting in settings.items():
            measured.add(rows[0].lane, name, figures[name])
            measured.failures += [f"{title} · {name} · {failure}" for failure in setting.failures]
            measured.other_cores += setting.other_cores


def beside(target: Target, stub: Stub) -> Target:
    """`target` with the stub's CPU told too, so that it does not pass for other load."""
    return replace(target, beside={**target.beside, "stub": (stub.process.pid,)})


@contextmanager
def surroundings(sample_ratio: float | None) -> Iterator[Surroundings]:
    """The stub and a folder for everything else; both gone when the block ends."""
    cores = Cores.of_this_machine()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="enginehouse-bench-")))
        stub = Stub(cores.load, folder / "stub.log", stub_options(folder))
        stack.callback(stub.close)
        words = tokenizer.write(folder / "tokenizer")
        objects = openai_objects(stub.url) + triton_objects(ServerRef(http=stub.url), words)
        house = House(cores, folder, objects, sample_ratio)
        stack.callback(house.close)
        yield Surroundings(cores, folder, stub, words, house)


def stub_options(folder: Path) -> list[str]:
    """Options that make the stub a Triton with the bare `tensorrt_llm` and the benchmark's vocabulary."""
    described = {
        "metadata": triton_schema.metadata(TRITON_MODEL),
        "config": triton_schema.config(TRITON_MODEL),
    }
    options = [
        "--id-base",
        tokenizer.ID_BASE,
        "--id-count",
        tokenizer.ID_COUNT,
        "--tick-us",
        tokenizer.TICK_US,
    ]
    for name, document in described.items():
        path = folder / f"{name}.json"
        path.write_text(json.dumps(document))
        options += [f"--{name}", path]
    return [str(option) for option in options]


def progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True)


def write(out: Path | None, text: str, result: dict[str, Any], console: Console) -> None:
    """The markdown, and the result as JSON beside it."""
    path = out or OUT / f"{time.strftime('%Y%m%d-%H%M%S')}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.with_suffix(".json").write_text(json.dumps(result, indent=1))
    console.print(f"written to {path}", highlight=False)


if __name__ == "__main__":
    sys.exit(main())
