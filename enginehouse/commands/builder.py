"""`enginehouse builder`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from enginehouse.commands.options import ConfigFile


def builder(
    once: Annotated[
        bool,
        typer.Option(
            "--once", help="End when there is no work; status 1 if a build went wrong, or Redis is away."
        ),
    ] = False,
    runtime: Annotated[
        Literal["tensorrt-llm", "emulated"] | None,
        typer.Option("--runtime", help="Builds to take. Default: tensorrt-llm where it is found."),
    ] = None,
    cache: Annotated[
        Path | None, typer.Option("--cache", help="Folder that keeps finished steps. Default: the settings'.")
    ] = None,
    config: ConfigFile = None,
) -> None:
    """Run one builder: it takes builds from Redis, one at a time, and publishes their engines.

    Run it where TensorRT-LLM is installed, with the GPUs that engines are for; any number may run. SIGTERM
    lets the step that runs end, and gives the build back. One that is killed loses nothing but that step.

    Examples:

      enginehouse builder --config enginehouse.toml

      enginehouse builder --once --runtime emulated
    """
    from enginehouse.builder_process import run_builder

    run_builder(config, once=once, runtime=runtime, cache=cache)
