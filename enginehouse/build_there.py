"""`enginehouse build` by the fleet's builders: asked for, and followed until it has ended."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from typing import cast, get_args

from engine_builder.build import Phase, Progress
from enginehouse import builds_api
from enginehouse.build_view import BuildView
from enginehouse.build_waiting import somebody_can, why_it_waits
from enginehouse.builder_errors import explained
from enginehouse.connection import Connection
from enginehouse.errors import ApiError, CommandError
from enginehouse.objects import fetch
from model_registry.build_jobs.entities import EngineBuild
from model_registry.engines import Engine

_LOOK_EVERY_S = 0.5
_AWAY_S = 60.0
"""How long a gateway may be away while a build is followed."""


def follow(connection: Connection, build: EngineBuild, wait_s: float) -> EngineBuild:
    """Show a build until it has ended. On Ctrl-C, ask whether it is to be cancelled, too.

    Raises CommandError when for `wait_s` no builder runs that can do it.
    """
    with BuildView(build.asked.engine) as view:
        view.say(f"{build.id} is {build.state}; `enginehouse builds logs -f {build.id}` follows it elsewhere")
        try:
            return asyncio.run(_until_ended(connection, build, view, Waiting(connection, wait_s, view.say)))
        except KeyboardInterrupt:
            pass
    if _wants_cancel():
        asyncio.run(builds_api.cancel(connection, build.id))
        sys.stderr.write(f"{build.id} is being cancelled\n")
    else:
        sys.stderr.write(f"{build.id} goes on; `enginehouse builds cancel {build.id}` ends it\n")
    raise KeyboardInterrupt


def outcome(build: EngineBuild) -> None:
    """Raise CommandError unless the build has succeeded."""
    if build.state == "succeeded":
        return
    if build.error is None:
        raise CommandError(f"{build.id} was {build.state}")
    remedy = explained(build.error.remedy, build.error.log_end)
    raise CommandError(f"{build.id} has failed: {build.error.message}", remedy or None)


async def engine_of(connection: Connection, build: EngineBuild) -> Engine:
    """The engine that a build has made, as the registry has it."""
    found = await fetch(connection, "Engine", build.asked.engine)
    return Engine.model_validate(found.items[0])


class Waiting:
    """While a build is queued: says why, and gives up when nobody is there to do it."""

    def __init__(self, connection: Connection, wait_s: float, say: Callable[[str], None]) -> None:
        self._connection = connection
        self._wait_s = wait_s
        self._say = say
        self._said = False
        self._nobody_since_s: float | None = None

    async def look(self, build: EngineBuild) -> None:
        """Raises CommandError."""
        if build.state != "queued":
            self._nobody_since_s = None
            return
        builders, now_s = await builds_api.builders(self._connection), time.monotonic()
        if somebody_can(build.asked, builders):
            self._nobody_since_s = None
            return
        why = why_it_waits(build.asked, builders)
        if not self._said:
            self._said = True
            self._say(f"{why}. It is waited for {self._wait_s:.0f} s (--builder-timeout)")
        if self._nobody_since_s is None:
            self._nobody_since_s = now_s
        if now_s - self._nobody_since_s >= self._wait_s:
            raise CommandError(
                f"{build.id} has waited for {self._wait_s:.0f} s, and nobody can do it",
                f"{why}\nit stays queued until one runs; `enginehouse builds cancel {build.id}` ends it",
            )


async def _until_ended(
    connection: Connection, build: EngineBuild, view: BuildView, waiting: Waiting
) -> EngineBuild:
    after, away_s = builds_api.FIRST, 0.0
    while True:
        try:
            followed = await builds_api.follow(connection, build.id, after)
            await waiting.look(followed.build)
        except ApiError as error:
            if error.status is not None and error.status < 500:
                raise
            away_s += _LOOK_EVERY_S
            if away_s > _AWAY_S:
                raise
            await asyncio.sleep(_LOOK_EVERY_S)
            continue
        build, away_s = followed.build, 0.0
        for line in followed.lines:
            view.line(line.step, line.text)
        if (progress := _progress(build)) is not None:
            view.progress(progress)
        if build.ended and followed.after == after:
            return build
        after = followed.after
        if not followed.lines:
            await asyncio.sleep(_LOOK_EVERY_S)


def _progress(build: EngineBuild) -> Progress | None:
    at = build.progress
    if at.phase not in get_args(Phase):
        return None
    phase = cast("Phase", at.phase)
    return Progress(at.step, at.number, at.steps, phase, at.elapsed_s, at.step_elapsed_s, at.eta_s)


def _wants_cancel() -> bool:
    """Asked on a terminal; elsewhere a build goes on without who asked for it."""
    if not sys.stdin.isatty():
        return False
    try:
        return input("\nCancel the build, too? [y/N] ").strip().lower() in {"y", "yes"}
    except (EOFError, KeyboardInterrupt):
        return False
