"""`enginehouse up`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from enginehouse.commands.options import StateDirectory


def up(
    port: Annotated[
        int | None,
        typer.Option("--port", min=0, max=65535, show_default="8080", help="Port; 0 takes any free one."),
    ] = None,
    host: Annotated[str | None, typer.Option("--host", show_default="127.0.0.1", help="Address.")] = None,
    state_dir: StateDirectory = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, show_default="1", help="Gateway processes.")
    ] = None,
    ready_file: Annotated[
        Path | None, typer.Option("--ready-file", help="Written as JSON once every model answers.")
    ] = None,
    fallback: Annotated[bool, typer.Option("--fallback", help="Serve the engines without Triton.")] = False,
    pacing: Annotated[
        str, typer.Option("--pacing", help="Keep the time of a GPU engine: name of a card, or a file.")
    ] = "none",
    trace_ratio: Annotated[
        float | None,
        typer.Option("--trace-ratio", min=0.0, max=1.0, show_default="1", help="Share of requests traced."),
    ] = None,
    stack: Annotated[
        Path | None, typer.Option("--stack", help="YAML that replaces the demo's servers and models.")
    ] = None,
    builder: Annotated[
        bool, typer.Option("--builder", help="Run a builder of emulated engines, too.")
    ] = False,
    demo: Annotated[bool, typer.Option("--demo", hidden=True)] = False,
    since: Annotated[float | None, typer.Option("--since", hidden=True)] = None,
    no_chat: Annotated[bool, typer.Option("--no-chat", help="With make demo: show no answer.")] = False,
) -> None:
    """Start a whole stack on this machine: Redis, Triton with CPU engines, controller, gateway.

    Runs until Ctrl-C and leaves nothing behind. No GPU, no Docker, no root.

    Examples:

      enginehouse up

      enginehouse up --port 0 --ready-file ready.json --state-dir /tmp/house

      enginehouse up --builder

      enginehouse up --workers 2 --pacing h100-sxm-llama-3.1-8b-fp8
    """
    from enginehouse.local.command import UpArguments, run_up

    run_up(
        UpArguments(
            port,
            host,
            state_dir,
            workers,
            ready_file,
            fallback,
            pacing,
            trace_ratio,
            stack,
            builder,
            demo and not no_chat,
            since,
        )
    )
