"""`enginehouse chat`."""

from __future__ import annotations

from typing import Annotated

import typer

from enginehouse.commands.options import Key, StateDirectory, Url


def chat(
    message: Annotated[
        str | None, typer.Argument(help="What to say. Without it: a conversation, or stdin.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Which model. Default: the first one.")
    ] = None,
    system: Annotated[str | None, typer.Option("--system", help="System message.")] = None,
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens", min=1, help="Longest answer, in tokens.")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option("--temperature", min=0.0, max=2.0, help="0 takes the likeliest token.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Equal seeds give equal answers.")] = None,
    url: Url = None,
    key: Key = None,
    state_dir: StateDirectory = None,
) -> None:
    """Talk to a model; the answer appears as it is made. Ctrl-C stops an answer.

    Examples:

      enginehouse chat -m house-chat "What is an enginehouse?"

      enginehouse chat -m house-chat:throughput

      echo "Summarise: ..." | enginehouse chat --max-tokens 80
    """
    from enginehouse.chat import Conversation, converse
    from enginehouse.connection import locate

    conversation = Conversation(
        locate(url, key, state_dir),
        model,
        system,
        {"max_tokens": max_tokens, "temperature": temperature, "seed": seed},
    )
    converse(conversation, message)
