"""`enginehouse get` and `enginehouse describe`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from enginehouse.commands.options import Key, StateDirectory, Url

if TYPE_CHECKING:
    from enginehouse.card_listing import Told
    from enginehouse.objects import Objects

Kind = Annotated[
    str,
    typer.Argument(
        help="model, adapter, deployment, endpoint, pool, replica, drain, profile, policy, tenant or apikey; "
        "plural works too."
    ),
]


def get(
    kind: Kind,
    name: Annotated[str | None, typer.Argument(help="Only this one.")] = None,
    output: Annotated[
        Literal["table", "yaml", "json"], typer.Option("--output", "-o", help="Format.")
    ] = "table",
    url: Url = None,
    key: Key = None,
    state_dir: StateDirectory = None,
) -> None:
    """List what the registry holds of one kind.

    Examples:

      enginehouse get models

      enginehouse get endpoints -o json

      enginehouse get deployment house-chat-latency -o yaml
    """
    from enginehouse.console import output as console
    from enginehouse.listing import as_json, as_table, as_yaml

    objects = _fetch(kind, name, url, key, state_dir)
    _note(objects)
    if output == "table":
        if objects.kind in ("Deployment", "Endpoint"):
            _add_learned(objects, _forecasts(url, key, state_dir))
        console().print(as_table(objects))
    else:
        typer.echo(as_json(objects) if output == "json" else as_yaml(objects))


def describe(
    kind: Kind,
    name: Annotated[str, typer.Argument(help="Which one.")],
    url: Url = None,
    key: Key = None,
    state_dir: StateDirectory = None,
) -> None:
    """Show one object with all its fields, and what names it.

    Of a profile, deployment or endpoint also the goodput cards, beside what forecasts have learned since.

    Examples:

      enginehouse describe model house-chat

      enginehouse describe profile latency
    """
    from enginehouse.card_listing import of_object
    from enginehouse.listing import RELATED
    from enginehouse.listing import describe as described

    objects = _described(kind, name, url, key, state_dir)
    _note(objects)
    related = [_fetch(other, None, url, key, state_dir) for other in RELATED.get(objects.kind, {})]
    typer.echo(described(objects, related))
    if objects.kind in ("Profile", "Deployment", "Endpoint"):
        typer.echo("\n".join(of_object(objects, related, _forecasts(url, key, state_dir))))


def _described(kind: str, name: str, url: Url, key: Key, state_dir: StateDirectory) -> Objects:
    """The object; a built-in profile that nobody has changed is no object of the registry."""
    from enginehouse.errors import ApiError
    from enginehouse.objects import Objects
    from model_registry.entities import Profile
    from model_registry.knobs import BUILT_IN

    try:
        return _fetch(kind, name, url, key, state_dir)
    except ApiError as error:
        if error.status != 404 or not kind.lower().startswith("profile") or name not in BUILT_IN:
            raise
        return Objects("Profile", [Profile(name=name).model_dump(mode="json")], "built in, unchanged")


def _forecasts(url: Url, key: Key, state_dir: StateDirectory) -> list[Told]:
    import asyncio

    from enginehouse.card_listing import forecasts
    from enginehouse.connection import locate

    return asyncio.run(forecasts(locate(url, key, state_dir)))


def _add_learned(objects: Objects, told: list[Told]) -> None:
    """What forecasts have learned, as a column."""
    from enginehouse.card_listing import learned, one_line_learned

    for item in objects.items:
        field = objects.kind.lower()
        item["learned"] = one_line_learned(learned(one for one in told if one[field] == item["name"]))


def _fetch(kind: str, name: str | None, url: Url, key: Key, state_dir: StateDirectory) -> Objects:
    import asyncio

    from enginehouse.connection import locate
    from enginehouse.objects import fetch

    return asyncio.run(fetch(locate(url, key, state_dir), kind, name))


def _note(objects: Objects) -> None:
    if objects.note is not None:
        typer.echo(f"note: {objects.note}", err=True)
