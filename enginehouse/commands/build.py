"""`enginehouse build`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from enginehouse.commands.options import ConfigFile, Key, StateDirectory, Url
from enginehouse.errors import CommandError


def build(
    name: Annotated[
        str | None, typer.Argument(help="EngineSpec of the registry; with -f, of the file.")
    ] = None,
    file: Annotated[
        str | None, typer.Option("--file", "-f", help="File with an EngineSpec, or - for stdin.")
    ] = None,
    local: Annotated[
        bool, typer.Option("--local", help="Build in this process. Default where no gateway is known.")
    ] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Ask the builders, and do not wait.")] = False,
    runtime: Annotated[
        Literal["tensorrt-llm", "emulated"] | None,
        typer.Option("--runtime", help="emulated: for CPU engines, no GPU. Default: tensorrt-llm."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the steps and their commands, and run none.")
    ] = False,
    cache: Annotated[
        Path | None, typer.Option("--cache", help="Folder that keeps finished steps. Default: the settings'.")
    ] = None,
    store: Annotated[
        str | None, typer.Option("--store", help="Folder or URL to publish to. Default: the settings'.")
    ] = None,
    builder_timeout: Annotated[
        float,
        typer.Option(
            "--builder-timeout", min=0, help="Seconds to wait while no builder runs that can do it."
        ),
    ] = 60.0,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    config: ConfigFile = None,
    url: Url = None,
    key: Key = None,
    state_dir: StateDirectory = None,
) -> None:
    """Build an engine from a spec and publish it; prints the engine's manifest.

    With a gateway, the fleet's builders do it, and this follows them; else it is done here. What was done
    before is not done again.

    Examples:

      enginehouse build -f examples/engines/llama-3-8b.yaml --dry-run --runtime emulated

      enginehouse build -f spec.yaml --local --runtime emulated > engine.yaml

      enginehouse build llama-3-8b --detach
    """
    from enginehouse.build_command import Asked, run_build

    if name is None and file is None:
        raise CommandError("nothing to build", "name an EngineSpec of the registry, or a file: -f spec.yaml")
    if detach and (local or dry_run):
        raise CommandError("--detach is for builders", "leave out --local and --dry-run, or --detach")
    asked = Asked(name, file, local, detach, runtime, dry_run, cache, store, builder_timeout, json)
    run_build(asked, config, url, key, state_dir)
