"""`enginehouse quality`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from enginehouse.commands.options import Key, StateDirectory, Url

_Target = "MODEL[:PROFILE] through the gateway, or URL#MODEL of any OpenAI server."


def quality(
    baseline: Annotated[str, typer.Option("--baseline", help=f"What is right. {_Target}")],
    candidate: Annotated[str, typer.Option("--candidate", help="What is judged; named alike.")],
    prompts: Annotated[
        Path | None,
        typer.Option(
            "--prompts", help='JSONL: {"prompt" or "messages", "answer"?}. Default: 60 that come along.'
        ),
    ] = None,
    max_drop: Annotated[
        float, typer.Option("--max-drop", min=0, max=1, help="Of accuracy, as a share: 0.005 is 0.5 %.")
    ] = 0.005,
    min_agreement: Annotated[
        float | None, typer.Option("--min-agreement", min=0, max=1, help="Greedy agreement to be kept.")
    ] = None,
    max_kl: Annotated[
        float | None, typer.Option("--max-kl", min=0, help="Mean KL divergence allowed, in nats.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Also fail where chance could hide a larger drop.")
    ] = False,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="Of an answer.")] = 128,
    concurrency: Annotated[int, typer.Option("--concurrency", min=1, help="Prompts under way, at most.")] = 4,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Report: Markdown, or JSON for a name in .json.")
    ] = None,
    save: Annotated[
        bool, typer.Option("--save", help="Keep the result with the candidate's engine.")
    ] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    url: Url = None,
    key: Key = None,
    state_dir: StateDirectory = None,
) -> None:
    """Does a quantized engine answer as well as its baseline? Exit status 1: it does not.

    Both are asked the same prompts, greedily. A server by URL gets the key in OPENAI_API_KEY.

    Examples:

      enginehouse quality --baseline chat:balanced --candidate chat-fp8:balanced -o report.md

      enginehouse quality --baseline http://bf16:8000#llama --candidate chat:latency --prompts mine.jsonl

      enginehouse quality --baseline chat --candidate chat-fp8 --min-agreement 0.9 --save
    """
    import asyncio
    import json

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from engine_builder.errors import BuilderError
    from engine_builder.quality import prompts as sets
    from engine_builder.quality import report
    from engine_builder.quality.verdict import Thresholds
    from enginehouse.errors import CommandError
    from enginehouse.interrupted import says_what_is_left
    from enginehouse.quality_gate import compare_targets, keep
    from enginehouse.targets import target
    from enginehouse.written import check_writable, write_text

    sides = (
        target(baseline, "--baseline", url, key, state_dir),
        target(candidate, "--candidate", url, key, state_dir),
    )
    try:
        asked = sets.shipped() if prompts is None else sets.read(prompts)
    except BuilderError as error:
        raise CommandError(str(error), error.remedy) from error
    check_writable((out, "--out"))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with (
        says_what_is_left(lambda: "no verdict was written"),
        Progress(*columns, console=Console(stderr=True), transient=True) as shown,
    ):
        task = shown.add_task("prompts answered by both", total=len(asked))
        result = asyncio.run(
            compare_targets(
                *sides,
                asked,
                Thresholds(max_drop, min_agreement, max_kl),
                max_tokens,
                concurrency,
                lambda done, _: shown.update(task, completed=done),
            )
        )
    told = (baseline, candidate, *result)
    if out is not None:
        whole = json.dumps(report.as_dict(*told), indent=1, ensure_ascii=False)
        write_text(out, whole if out.suffix == ".json" else report.markdown(*told), "--out")
    if json_output:
        typer.echo(json.dumps(report.as_dict(*told), indent=1, ensure_ascii=False))
    else:
        typer.echo(f"{candidate} beside {baseline}: {report.headline(result.verdict)}")
        figures = (f"{name}: {value}" for name, value in report.rows(result.summary))
        for line in (*result.verdict.reasons, *figures):
            typer.echo(f"  {line}")
    if save:
        typer.echo(f"kept with engine {asyncio.run(keep(sides[1], sides[0], result))}", err=json_output)
    if not result.verdict.passed or (strict and not result.verdict.sure):
        raise typer.Exit(1)
