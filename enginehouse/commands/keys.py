"""`enginehouse keys`."""

from __future__ import annotations

from typing import Annotated

import typer

from enginehouse.commands.options import Key, StateDirectory, Url

keys = typer.Typer(help="API keys of tenants.", no_args_is_help=True)


@keys.callback()
def _group() -> None:
    """API keys of tenants."""


@keys.command()
def create(
    name: Annotated[str, typer.Argument(help="Name of the key, shown in lists.")],
    tenant: Annotated[str, typer.Option("--tenant", help="Whose key it is.")] = "default",
    admin: Annotated[bool, typer.Option("--admin", help="May use the admin API.")] = False,
    url: Url = None,
    key: Key = None,
    state_dir: StateDirectory = None,
) -> None:
    """Create an API key and print it. It is shown this once; only its hash is stored.

    Examples:

      enginehouse keys create laptop

      enginehouse keys create ops --tenant platform --admin
    """
    import asyncio

    from enginehouse.connection import locate
    from enginehouse.objects import create_key

    created = asyncio.run(create_key(locate(url, key, state_dir), name, tenant, admin))
    typer.echo(created)
