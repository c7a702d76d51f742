"""`enginehouse keys`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from enginehouse.commands.options import ConfigFile, Key, StateDirectory, Url
from enginehouse.errors import CommandError

keys = typer.Typer(help="API keys of tenants.", no_args_is_help=True)


@keys.callback()
def _group() -> None:
    """API keys of tenants."""


@keys.command()
def create(
    name: Annotated[str, typer.Argument(help="Name of the key, shown in lists.")],
    tenant: Annotated[str, typer.Option("--tenant", help="Whose key it is.")] = "default",
    admin: Annotated[bool, typer.Option("--admin", help="May use the admin API.")] = False,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", help="Good for this model or alias only. May repeat. Default: its tenant's."),
    ] = None,
    profile: Annotated[
        list[str] | None,
        typer.Option("--profile", help="Good for this profile only. May repeat. Default: its tenant's."),
    ] = None,
    expires_at: Annotated[
        datetime | None,
        typer.Option("--expires-at", help="Good until then, UTC.", formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]),
    ] = None,
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

      enginehouse keys create ci --tenant acme --model house-chat --expires-at 2030-01-31

      enginehouse keys create operator --tenant operators --admin --direct
    """
    import asyncio

    scope: dict[str, Any] = {"models": model, "profiles": profile}
    scope["expires_at"] = None if expires_at is None else expires_at.replace(tzinfo=UTC).isoformat()
    scope = {field: said for field, said in scope.items() if said}
    if direct:
        if scope:
            raise CommandError("the first key has no scope", "leave --model, --profile and --expires-at out")
        from enginehouse.first_key import create_first_key
        from enginehouse.settings import load

        typer.echo(asyncio.run(create_first_key(load(config).settings.registry, name, tenant, admin)))
        return
    from enginehouse.connection import locate
    from enginehouse.objects import create_key

    typer.echo(asyncio.run(create_key(locate(url, key, state_dir), name, tenant, admin, scope)))


@keys.command()
def revoke(
    name: Annotated[str, typer.Argument(help="Name of the key.")],
    url: Url = None,
    key: Key = None,
    state_dir: StateDirectory = None,
) -> None:
    """Let nobody in by a key any more, for good. Requests under way are not touched.

    Example: enginehouse keys revoke laptop
    """
    import asyncio

    from enginehouse.connection import locate
    from enginehouse.objects import revoke_key

    asyncio.run(revoke_key(locate(url, key, state_dir), name))
    typer.echo(f"apikey/{name} revoked")
