"""`enginehouse loadtest`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from enginehouse.commands.options import Key, StateDirectory, Url


def loadtest(
    target: Annotated[
        str,
        typer.Option(
            "--model", "-m", help="MODEL[:PROFILE] through the gateway, or URL#MODEL of any OpenAI server."
        ),
    ],
    against: Annotated[
        str | None, typer.Option("--against", help="Another one, measured in turns with the first.")
    ] = None,
    rate: Annotated[
        list[float] | None,
        typer.Option(
            "--rate",
            "-r",
            min=0.001,
            max=100_000,
            help="Requests per second; may repeat. Default: 1, or the trace's.",
        ),
    ] = None,
    seconds: Annotated[
        float, typer.Option("--seconds", min=1, max=86400, help="Of each rate, for each target.")
    ] = 60.0,
    arrivals: Annotated[
        Literal["poisson", "constant"], typer.Option("--arrivals", help="Gaps between requests.")
    ] = "poisson",
    prompt_tokens: Annotated[
        str, typer.Option("--prompt-tokens", help="512, 100-900 (evenly) or 512~128 (mean ~ deviation).")
    ] = "512",
    output_tokens: Annotated[str, typer.Option("--output-tokens", help="The same for answers.")] = "128",
    trace: Annotated[
        str | None,
        typer.Option(
            "--trace",
            "-t",
            help="Arrivals and lengths of a trace: Mooncake's jsonl, Azure's csv, or `mooncake`, `azure`.",
        ),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option("--max-tokens", min=2, help="Leave out a trace's requests that have more."),
    ] = None,
    ttft_s: Annotated[
        float | None, typer.Option("--ttft", min=0.001, help="For goodput. Default: the profile's target.")
    ] = None,
    itl_s: Annotated[
        float | None, typer.Option("--itl", min=0.0001, help="For goodput. Default: the profile's target.")
    ] = None,
    concurrency: Annotated[
        int,
        typer.Option("--concurrency", min=1, help="Requests under way, at most; more wait, which counts."),
    ] = 2048,
    driver: Annotated[
        Literal["auto", "own", "aiperf"],
        typer.Option("--driver", help="Who sends: NVIDIA's aiperf where it is installed, or our client."),
    ] = "auto",
    tokenizer: Annotated[
        str | None, typer.Option("--tokenizer", help="Folder, for aiperf. Default: the registered model's.")
    ] = None,
    rounds: Annotated[
        int, typer.Option("--rounds", min=2, max=100, help="Turns of each target with --against.")
    ] = 6,
    seed: Annotated[int, typer.Option("--seed", help="Of arrivals and lengths.")] = 1,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the result (JSON) here.")] = None,
    picture: Annotated[Path | None, typer.Option("--picture", help="Write a picture (SVG) here.")] = None,
    save: Annotated[bool, typer.Option("--save", help="Keep the result with the model's engine.")] = False,
    baseline: Annotated[
        Path | None, typer.Option("--baseline", help="An earlier result; exit 1 if this one is worse.")
    ] = None,
    max_regression: Annotated[
        str, typer.Option("--max-regression", help="How much worse any figure may be.")
    ] = "10%",
    json_output: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    url: Url = None,
    key: Key = None,
    state_dir: StateDirectory = None,
) -> None:
    """Measure a model or endpoint under load: TTFT, ITL, throughput, goodput, errors.

    Requests are sent when they are due, whatever became of those before. A server by URL gets the key in
    OPENAI_API_KEY. Exit status 1: worse than --baseline, beyond chance; or nothing was answered.

    Examples:

      enginehouse loadtest -m chat:latency --rate 4 --rate 8 --rate 16 --picture goodput.svg

      enginehouse loadtest -m chat:latency --against http://vllm-0:8000#llama --rate 8 --trace azure

      enginehouse loadtest -m chat:latency --rate 8 --save -o monday.json

      enginehouse loadtest -m chat:latency --rate 8 --baseline monday.json --max-regression 5%
    """
    import asyncio
    import json

    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from engine_builder.errors import BuilderError
    from engine_builder.loadtest.plan import Lengths
    from engine_builder.loadtest.regression import share
    from enginehouse import loadtest_files, loadtest_report
    from enginehouse.console import output
    from enginehouse.errors import CommandError
    from enginehouse.interrupted import says_what_is_left
    from enginehouse.loadtesting import Wanted, load_test, regressions
    from enginehouse.targets import target as named
    from enginehouse.written import check_writable, write_text

    targets = [named(target, "--model", url, key, state_dir)]
    if against is not None:
        targets.append(named(against, "--against", url, key, state_dir))
    try:
        lengths = Lengths.parse(prompt_tokens, "--prompt-tokens")
        answers = Lengths.parse(output_tokens, "--output-tokens")
        most_worse = share(max_regression, "--max-regression")
    except BuilderError as error:
        raise CommandError(str(error), error.remedy) from error
    check_writable((out, "--out"), (picture, "--picture"))
    before = None if baseline is None else loadtest_files.read(baseline)
    wanted = Wanted(
        tuple(targets), tuple(rate or ()), seconds, arrivals, lengths, answers, trace, max_tokens,
        ttft_s, itl_s, concurrency, driver, tokenizer, rounds, seed,
    )  # fmt: skip
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    latest = "asking for the first answers"

    def says(what: str, done: float) -> None:
        nonlocal latest
        latest = what
        shown.update(task, description=what, completed=done)

    with (
        says_what_is_left(lambda: f"{latest}; no result was written"),
        Progress(*columns, console=Console(stderr=True), transient=True) as shown,
    ):
        task = shown.add_task(latest, total=1.0)
        results = asyncio.run(load_test(wanted, says))
    told = [one.as_dict() for one in results]
    whole = told[0] if len(told) == 1 else {"result": told[0], "against": told[1]}
    if out is not None:
        write_text(out, json.dumps(whole), "--out")
    if picture is not None:
        write_text(picture, loadtest_report.picture(results), "--picture")
    if json_output:
        typer.echo(json.dumps(whole, indent=1))
    else:
        output().print(*loadtest_report.tables(results))
    for line in loadtest_report.remarks(results):
        typer.echo(line, err=json_output)
    loadtest_report.check_answered(results)
    if save:
        typer.echo(f"kept: {asyncio.run(loadtest_files.save(targets[0], results[0]))}", err=json_output)
    if before is not None:
        found = regressions(results[0], before, most_worse)
        for at, one in found:
            typer.echo(loadtest_report.told_regression(one, at, most_worse), err=json_output)
        if any(one.certain for _, one in found):
            raise typer.Exit(1)
        typer.echo(f"no regression beyond {max_regression} that chance does not explain", err=json_output)
