"""`enginehouse keys`."""

from __future__ import annotations

from typing import Annotated

import typer

from enginehouse.commands.options import ConfigFile, Key, StateDirectory, Url

keys = typer.Typer(help="API keys of tenants.", no_args_is_help=True)


@keys.callback()
def _group() -> None:
    """API keys of tenants."""


@keys.command()
def create(
    name: Annotated[str, typer.Argument(help="Name of the key, shown in lists.")],
    tenant: Annotated[str, typer.Option("--tenant", help="Whose key it is.")] = "default",
    admin: Annotated[bool, typer.Option("--admin", help="May use the admin API.")] = False,
    direct: Annotated[
        bool,
        typer.Option(
            "--direct",
            help="For the first key: written to the settings' Redis without a gateway, with its tenant.",
        ),
    ] = False,
    config: ConfigFile = None,
    url: Url = None,
    key: Key = None,
    state_dir: StateDirectory = None,
) -> None:
    """Create an API key and print it. It is shown this once; only its hash is stored.

    Examples:

      enginehouse keys create laptop

      enginehouse keys create operator --tenant operators --admin --direct
    """
    import asyncio

    if direct:
        from enginehouse.first_key import create_first_key
        from enginehouse.settings import load

        typer.echo(asyncio.run(create_first_key(load(config).settings.registry, name, tenant, admin)))
        return
    from enginehouse.connection import locate
    from enginehouse.objects import create_key

    typer.echo(asyncio.run(create_key(locate(url, key, state_dir), name, tenant, admin)))
