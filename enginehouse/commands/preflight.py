"""`enginehouse preflight`."""

from __future__ import annotations

from typing import Annotated

import typer

from enginehouse.commands.options import ConfigFile, Key, StateDirectory, Url

UNFIT = 1


def preflight(
    what: Annotated[
        str,
        typer.Argument(metavar="ENGINE|FOLDER", help="An engine's name, its folder, or a model repository."),
    ],
    server: Annotated[
        str | None,
        typer.Option(
            "--server", help="Model server to ask. Default: that of the engine's deployment, if any."
        ),
    ] = None,
    grpc: Annotated[
        str | None, typer.Option("--grpc", help="host:port of it: LoRA adapters are sent by gRPC.")
    ] = None,
    metrics: Annotated[str | None, typer.Option("--metrics", help="URL of its metrics.")] = None,
    target: Annotated[
        str | None, typer.Option("--target", help="Model on the server. Default: the text model.")
    ] = None,
    gpu_class: Annotated[
        str | None,
        typer.Option("--gpu-class", help="Of the server: h100-sxm, ... Default: its deployment's."),
    ] = None,
    server_version: Annotated[
        str | None, typer.Option("--server-version", help="TensorRT-LLM that the server runs.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the record as JSON.")] = False,
    config: ConfigFile = None,
    url: Url = None,
    key: Key = None,
    state_dir: StateDirectory = None,
) -> None:
    """Look at an engine before it serves: its files, then a server that has it loaded.

    What is found is recorded with the engine, whose deployments get no requests before it has passed. Exit
    status 1 when a check fails.

    Examples:

      enginehouse preflight llama-3-8b-4f2a91c0d7e3 --server http://gpu7:8000 --metrics http://gpu7:8002/metrics

      enginehouse preflight ./triton_model_repo

      enginehouse preflight ./engine --json
    """
    import asyncio

    from pydantic import ValidationError
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

    from enginehouse.builder_errors import told
    from enginehouse.console import output
    from enginehouse.engine_listing import checks_table, verdict
    from enginehouse.engine_places import EnginePlaces
    from enginehouse.errors import CommandError
    from enginehouse.preflighting import Wanted, maybe_located, run
    from model_registry.entities import ServerRef

    try:
        asked = None if server is None else ServerRef(http=server, grpc=grpc, metrics=metrics)
    except ValidationError as error:
        first = error.errors()[0]
        option = {"http": "--server"}.get(str(first["loc"][0]), f"--{first['loc'][0]}")
        raise CommandError(f"{option}: {first['msg']}", "as in http://gpu7:8000") from error
    wanted = Wanted(what, asked, target, gpu_class, server_version)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    with told(), Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("looking", total=None)
        outcome = asyncio.run(
            run(
                wanted,
                EnginePlaces.find(config, state_dir),
                maybe_located(url, key, state_dir),
                lambda check: shown.update(task, description=f"done: {check.name}"),
                lambda done, total: shown.update(
                    task, description="comparing digests", completed=done, total=total
                ),
            )
        )
    record = outcome.record
    if as_json:
        typer.echo(record.model_dump_json(indent=2))
    else:
        output().print(checks_table(record.checks))
        typer.echo(verdict(record.checks, record.server is not None))
    typer.echo(outcome.note, err=True)
    if not record.passed:
        raise typer.Exit(UNFIT)
