"""`enginehouse rollout`: move a model to a new deployment step by step, and back where it is worse."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from enginehouse.commands.options import Key, StateDirectory, Url

if TYPE_CHECKING:
    from model_registry.rollouts import Wanted

rollout = typer.Typer(
    no_args_is_help=True,
    help="Move a model to a new deployment: copies, then growing shares, then all; back by itself if worse.",
)
Name = Annotated[str | None, typer.Argument(help="Which rollout. Default: the one that is under way.")]
Json = Annotated[bool, typer.Option("--json", help="As JSON.")]


@rollout.command()
def start(
    model: Annotated[str, typer.Option("--model", "-m", help="The model.")],
    candidate: Annotated[str, typer.Option("--candidate", help="Its deployment that is to take over.")],
    stable: Annotated[
        str | None,
        typer.Option("--stable", help="Its deployment that serves now. Default: the only other one."),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Of the rollout. Default: STABLE-to-CANDIDATE.")
    ] = None,
    steps: Annotated[
        str | None, typer.Option("--steps", help="Shares in percent. Default: 1,2,5,10,25,50.")
    ] = None,
    step_samples: Annotated[
        int | None, typer.Option("--step-samples", min=1, help="Requests the candidate serves in each step.")
    ] = None,
    step_seconds: Annotated[
        float | None,
        typer.Option("--step-seconds", min=0, max=604_800, help="How long each step lasts at least."),
    ] = None,
    shadow_share: Annotated[
        float | None,
        typer.Option("--shadow-share", min=0.001, max=1, help="Share of the requests that are copied."),
    ] = None,
    shadow_samples: Annotated[
        int | None, typer.Option("--shadow-samples", min=1, help="Copies before the first step, at least.")
    ] = None,
    shadow_seconds: Annotated[
        float | None,
        typer.Option(
            "--shadow-seconds", min=0, max=604_800, help="How long they are made before it, at least."
        ),
    ] = None,
    no_shadow: Annotated[
        bool, typer.Option("--no-shadow", help="No copies: begin with the first step.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show how it goes on, to its end.")] = False,
    url: Url = None,
    key: Key = None,
    state_dir: StateDirectory = None,
) -> None:
    """Begin a rollout. Bounds and error probabilities can be set in a manifest (`apply -f rollout.yaml`).

    Examples:

      enginehouse rollout start -m chat --candidate chat-fp8 --watch

      enginehouse rollout start -m chat --stable chat-trt --candidate chat-llmapi --steps 5,25,50
    """
    import asyncio

    from enginehouse.connection import locate
    from enginehouse.rolling_out import shadow_plan, steps_of
    from enginehouse.rolling_out import start as begin

    changes: dict[str, Any] = {}
    if steps is not None or step_samples is not None or step_seconds is not None:
        changes["steps"] = steps_of(steps or "1,2,5,10,25,50", step_samples, step_seconds)
    if no_shadow:
        changes["shadow"] = None
    elif (shadow_share, shadow_seconds, shadow_samples) != (None, None, None):
        changes["shadow"] = shadow_plan(shadow_share, shadow_seconds, shadow_samples)
    connection = locate(url, key, state_dir)
    begun = asyncio.run(begin(connection, model, candidate, stable, name, changes))
    typer.echo(f"rollout/{begun.name} run {begun.run}: {begun.stable} -> {begun.candidate}")
    if watch:
        raise typer.Exit(_watch(connection, begun.name))


@rollout.command()
def status(
    name: Name = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show how it goes on, to its end.")] = False,
    as_json: Json = False,
    url: Url = None,
    key: Key = None,
    state_dir: StateDirectory = None,
) -> None:
    """Show where a rollout stands, why, and its figures beside their bounds; without a name and none: all.

    With --watch the exit status is 0 when it was promoted and 3 when it was not.

    Examples:

      enginehouse rollout status

      enginehouse rollout status chat-trt-to-chat-fp8 --watch
    """
    import asyncio

    from enginehouse.connection import locate
    from enginehouse.console import output
    from enginehouse.rolling_out import progress, rollouts, the_one
    from enginehouse.rollout_view import one_line, shown

    connection = locate(url, key, state_dir)
    if watch:
        raise typer.Exit(_watch(connection, asyncio.run(the_one(connection, name))))
    if name is None and not as_json:
        found = asyncio.run(rollouts(connection))
        if len(found) != 1:
            for one in found:
                typer.echo(one_line(asyncio.run(progress(connection, one.name))))
            if not found:
                typer.echo("no rollouts")
            return
        name = found[0].name
    known = asyncio.run(progress(connection, asyncio.run(the_one(connection, name))))
    if as_json:
        import json

        told = None if known.status is None else known.status.model_dump(mode="json")
        shown_as = {"rollout": known.rollout.model_dump(mode="json"), "status": told, "note": known.note}
        typer.echo(json.dumps(shown_as, indent=2))
        return
    output().print(shown(known))


@rollout.command()
def pause(name: Name = None, url: Url = None, key: Key = None, state_dir: StateDirectory = None) -> None:
    """Keep the present share until `resume`; a regression is rolled back all the same.

    Example: enginehouse rollout pause
    """
    _want("pause", name, url, key, state_dir)


@rollout.command()
def resume(name: Name = None, url: Url = None, key: Key = None, state_dir: StateDirectory = None) -> None:
    """Go on after a pause.

    Example: enginehouse rollout resume
    """
    _want("run", name, url, key, state_dir)


@rollout.command()
def abort(name: Name = None, url: Url = None, key: Key = None, state_dir: StateDirectory = None) -> None:
    """Give everything back to the stable deployment, now.

    Example: enginehouse rollout abort chat-trt-to-chat-fp8
    """
    _want("abort", name, url, key, state_dir)


@rollout.command()
def promote(name: Name = None, url: Url = None, key: Key = None, state_dir: StateDirectory = None) -> None:
    """Give everything to the candidate now, whatever is not proven yet.

    Example: enginehouse rollout promote chat-trt-to-chat-fp8
    """
    _want("promote", name, url, key, state_dir)


def _want(wanted: Wanted, name: Name, url: Url, key: Key, state_dir: StateDirectory) -> None:
    import asyncio

    from enginehouse.connection import locate
    from enginehouse.rolling_out import the_one, want

    connection = locate(url, key, state_dir)
    known = asyncio.run(want(connection, asyncio.run(the_one(connection, name)), wanted))
    typer.echo(f"rollout/{known.rollout.name}: {wanted} wanted; it is {known.phase}")


def _watch(connection: Any, name: str) -> int:
    """Show it to its end; the exit status."""
    import asyncio

    from rich.live import Live

    from enginehouse.console import output
    from enginehouse.interrupted import says_what_is_left
    from enginehouse.rolling_out import watched
    from enginehouse.rollout_view import one_line, shown

    console = output()

    async def follow() -> str:
        phase, told = "pending", ""
        with Live(console=console, refresh_per_second=4, auto_refresh=console.is_terminal) as live:
            async for known in watched(connection, name):
                phase = known.phase
                if console.is_terminal:
                    live.update(shown(known))
                elif (line := one_line(known)) != told:
                    console.print(line)
                    told = line
        return phase

    goes_on = f"rollout/{name} goes on; `enginehouse rollout abort {name}` ends it"
    with says_what_is_left(lambda: goes_on):
        return 0 if asyncio.run(follow()) == "promoted" else 3
