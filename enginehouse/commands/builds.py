"""`enginehouse builds`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from enginehouse.commands.options import ConfigFile, Key, StateDirectory, Url

builds = typer.Typer(
    help="Builds of engines, under way and ended. Example: enginehouse builds list", no_args_is_help=True
)

BuildId = Annotated[str, typer.Argument(help="Its id, of `enginehouse builds list`.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@builds.command(name="list")
def list_builds(
    last: Annotated[int, typer.Option("--last", "-n", min=1, max=1000, help="How many to list.")] = 20,
    json: Json = False,
    url: Url = None,
    key: Key = None,
    state_dir: StateDirectory = None,
) -> None:
    """List builds, the newest first.

    Example: enginehouse builds list
    """
    import asyncio

    from enginehouse import builds_api
    from enginehouse.build_listing import as_json, as_table, waiting
    from enginehouse.connection import locate
    from enginehouse.console import output

    connection = locate(url, key, state_dir)
    found = asyncio.run(builds_api.newest(connection, last))
    if json:
        typer.echo(as_json(found))
        return
    output().print(as_table(found))
    if any(one.state == "queued" for one in found):
        for line in waiting(found, asyncio.run(builds_api.builders(connection))):
            typer.echo(line, err=True)


@builds.command()
def show(
    build: BuildId,
    json: Json = False,
    url: Url = None,
    key: Key = None,
    state_dir: StateDirectory = None,
) -> None:
    """Show one build: how far it is, who has it, why it failed.

    Example: enginehouse builds show build-3f9a1c20b7de
    """
    import asyncio

    from enginehouse import builds_api
    from enginehouse.build_listing import as_json, described
    from enginehouse.connection import locate

    connection = locate(url, key, state_dir)
    found = asyncio.run(builds_api.get(connection, build))
    if json:
        typer.echo(as_json(found))
    else:
        typer.echo(described(found, asyncio.run(builds_api.builders(connection))))


@builds.command()
def logs(
    build: BuildId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the build has ended.")] = False,
    url: Url = None,
    key: Key = None,
    state_dir: StateDirectory = None,
) -> None:
    """Print the last lines that a build's steps have written; builders keep the whole beside their cache.

    Example: enginehouse builds logs -f build-3f9a1c20b7de
    """
    import asyncio

    from enginehouse.build_listing import print_log
    from enginehouse.connection import locate

    asyncio.run(print_log(locate(url, key, state_dir), build, follow))


@builds.command()
def cancel(build: BuildId, url: Url = None, key: Key = None, state_dir: StateDirectory = None) -> None:
    """End a build; its builder ends the step that runs. Steps that were done stay in the cache.

    Example: enginehouse builds cancel build-3f9a1c20b7de
    """
    import asyncio

    from enginehouse import builds_api
    from enginehouse.connection import locate

    found = asyncio.run(builds_api.cancel(locate(url, key, state_dir), build))
    typer.echo(f"{found.id} {'is being cancelled' if found.cancelling else found.state}")


@builds.command()
def gc(
    max_gib: Annotated[
        float, typer.Option("--max-gib", min=0, help="What may stay; the least recently used goes first.")
    ],
    cache: Annotated[Path | None, typer.Option("--cache", help="Default: the settings'.")] = None,
    config: ConfigFile = None,
) -> None:
    """Remove finished steps from this machine's cache, never any that a build uses. Engines stay.

    Example: enginehouse builds gc --max-gib 200
    """
    from engine_builder.amounts import bytes_told
    from enginehouse.builder_errors import told
    from enginehouse.building import open_cache
    from enginehouse.settings import load

    with told(), open_cache(load(config).settings.builder, cache) as opened:
        found = opened.collect(int(max_gib * (1 << 30)))
    in_use = f"; {found.in_use} more are in use" if found.in_use else ""
    freed, kept = bytes_told(found.freed_bytes), bytes_told(found.kept_bytes)
    typer.echo(f"removed {found.removed} steps, {freed}; {kept} stay{in_use}")
