"""`enginehouse explain`."""

from __future__ import annotations

from typing import Annotated

import typer

from enginehouse.commands.options import Key, StateDirectory, Url


def explain(
    request_id: Annotated[
        str | None, typer.Argument(help="The id that the request's answer or its x-request-id header names.")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Decisions for this model.")] = None,
    last: Annotated[int, typer.Option("--last", "-n", min=1, max=1000, help="How many to list.")] = 20,
    url: Url = None,
    key: Key = None,
    state_dir: StateDirectory = None,
) -> None:
    """Say why requests went where they went: each decision with its candidates, scores and reasons.

    Examples:

      enginehouse explain chatcmpl-5f3c0d9a7be14c2a9d8e7f60

      enginehouse explain --model house-chat -n 50
    """
    import asyncio

    from enginehouse.connection import locate
    from enginehouse.decision_listing import show

    asyncio.run(show(locate(url, key, state_dir), request_id, model, last))
