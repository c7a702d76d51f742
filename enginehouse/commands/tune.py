"""`enginehouse tune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from enginehouse.commands.options import Key, StateDirectory, Url


def tune(
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="MODEL or MODEL:PROFILE; one deployment must serve it."),
    ] = None,
    knob: Annotated[
        list[str] | None,
        typer.Option(
            "--knob",
            "-k",
            metavar="NAME[=A,B,...]",
            help="What to vary: scheduler_policy, chunked_context, kv_fraction, kv_tokens, queue_delay_us, "
            "max_in_flight. May repeat. Default: those that fit its lane.",
        ),
    ] = None,
    concurrency: Annotated[
        list[int] | None,
        typer.Option(
            "--concurrency",
            min=1,
            help="Clients of one replica at once. May repeat. Default: 1, 2, 4, ... slots.",
        ),
    ] = None,
    prompt_tokens: Annotated[
        int, typer.Option("--prompt-tokens", min=1, help="Tokens of a usual prompt.")
    ] = 512,
    output_tokens: Annotated[
        int, typer.Option("--output-tokens", min=2, help="Tokens of a usual answer.")
    ] = 128,
    seconds: Annotated[
        float, typer.Option("--seconds", min=0.2, max=3600, help="Of one measurement.")
    ] = 20.0,
    max_trials: Annotated[int, typer.Option("--max-trials", min=1, help="Measurements at most.")] = 60,
    max_minutes: Annotated[
        float, typer.Option("--max-minutes", min=0.01, help="Time for all of them, about.")
    ] = 60.0,
    deployment: Annotated[
        str | None, typer.Option("--deployment", help="Make sure that it is this one.")
    ] = None,
    journal: Annotated[
        Path | None, typer.Option("--journal", help="Kept while searching. Default: tune-MODEL.json here.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with that journal.")] = False,
    restore: Annotated[
        Path | None,
        typer.Option("--restore", metavar="JOURNAL", help="Only put back what a killed tune has left."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Even while others use the deployment.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the best setting in force.")] = False,
    gpu_class: Annotated[
        str | None, typer.Option("--gpu-class", help="Default: the deployment's label gpu_class.")
    ] = None,
    gpus: Annotated[int, typer.Option("--gpus", min=1, max=1024, help="GPUs of one replica.")] = 1,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the manifest with the card to this file.")
    ] = None,
    picture: Annotated[
        Path | None, typer.Option("--picture", help="Write the Pareto picture (SVG) to this file.")
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    url: Url = None,
    key: Key = None,
    state_dir: StateDirectory = None,
) -> None:
    """Find the runtime settings of a live deployment that give most goodput, and its goodput card.

    Settings change while it serves; at the end, on an error and on Ctrl-C everything is put back as it was.

    Examples:

      enginehouse tune -m chat:latency -o tuned.yaml --picture tuned.svg

      enginehouse tune -m chat:throughput -k scheduler_policy -k max_in_flight=32,64,128 --seconds 60

      enginehouse tune -m chat:latency --resume

      enginehouse tune --restore tune-chat-latency.json
    """
    import asyncio

    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from engine_builder.tuning import Budget
    from enginehouse.card_files import write_manifest
    from enginehouse.connection import locate
    from enginehouse.console import output
    from enginehouse.errors import CommandError
    from enginehouse.interrupted import says_what_is_left, until_done
    from enginehouse.tuning import PUT_BACK, Wanted, knobs_given, restore_from, tune_deployment
    from enginehouse.tuning_report import as_json, summary, svg, table
    from enginehouse.written import check_writable, write_text

    connection = locate(url, key, state_dir)
    if restore is not None:
        typer.echo(f"{asyncio.run(restore_from(connection, restore))} is as it was")
        return
    if model is None:
        raise CommandError("-m: which model is missing", "give it: -m MODEL:PROFILE")
    wanted = Wanted(
        model,
        deployment,
        knobs_given(knob or ()),
        tuple(sorted(set(concurrency or ()))),
        prompt_tokens,
        output_tokens,
        seconds,
        Budget(max_trials, 60 * max_minutes),
        journal or Path(f"tune-{model.replace(':', '-').replace('/', '-')}.json"),
        resume,
        force,
        keep,
        gpu_class,
        gpus,
    )
    check_writable((out, "--out"), (picture, "--picture"))
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    latest = asking = "asking the registry"

    def says(what: str) -> None:
        nonlocal latest
        latest = what
        shown.update(task, description=what)

    def left() -> str:
        if latest not in (asking, PUT_BACK):
            return (
                f"a setting may still be in force; put it back: enginehouse tune --restore {wanted.journal}"
            )
        on = f"; {wanted.journal} has the trials: --resume goes on" if wanted.journal.exists() else ""
        return f"{PUT_BACK}{on}"

    with (
        says_what_is_left(left),
        Progress(*columns, console=Console(stderr=True), transient=True) as shown,
    ):
        task = shown.add_task(asking, total=None)
        found = asyncio.run(until_done(tune_deployment(connection, wanted, says)))
    if picture is not None:
        write_text(picture, svg(found), "--picture")
    if out is not None:
        write_manifest(found.deployment, out)
    if json_output:
        typer.echo(as_json(found))
        return
    output().print(table(found), summary(found, keep))
    if out is None:
        write_manifest(found.deployment, None)
