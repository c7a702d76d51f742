"""How builds are shown: as a table, one by one, and by their logs."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from enginehouse import builds_api
from enginehouse.build_view import spelled
from enginehouse.build_waiting import somebody_can, why_it_waits
from enginehouse.connection import Connection
from model_registry.build_jobs.entities import BuilderSeen, EngineBuild

_LOOK_EVERY_S = 0.5


def as_json(builds: EngineBuild | Sequence[EngineBuild]) -> str:
    """With every field."""
    return msgspec.json.format(msgspec.json.encode(builds)).decode()


def as_table(builds: Sequence[EngineBuild]) -> RenderableType:
    """One row a build."""
    if not builds:
        return Text("no builds")
    table = Table("build", "engine", "runtime", "state", "step", "took", "builder", box=None, pad_edge=False)
    for build in builds:
        step = f"{build.progress.number}/{build.progress.steps} {build.progress.step}" if _at(build) else ""
        runtime, worker = build.asked.runtime, build.worker
        table.add_row(build.id, build.asked.engine, runtime, _state(build), step, _took(build), worker)
    return table


def waiting(builds: Sequence[EngineBuild], builders: Sequence[BuilderSeen]) -> list[str]:
    """Why those that are queued wait; a line for each reason, none where builders will do it."""
    why: dict[str, list[str]] = {}
    for build in builds:
        if build.state == "queued" and not somebody_can(build.asked, builders):
            why.setdefault(why_it_waits(build.asked, builders), []).append(build.id)
    return [f"{', '.join(ids[:3])}{' ...' if len(ids) > 3 else ''}: {reason}" for reason, ids in why.items()]


def described(build: EngineBuild, builders: Sequence[BuilderSeen]) -> str:
    """One build with all there is to know."""
    asked, at = build.asked, build.progress
    where = f"{asked.gpus} x {asked.gpu_class}" if asked.gpus else "any machine"
    lines = [
        f"build:    {build.id}",
        f"engine:   {asked.engine}",
        f"digest:   {asked.digest}",
        f"runtime:  {asked.runtime}, on {where}",
        f"store:    {asked.store_url or 'of the builder'}",
        f"asked by: {asked.asked_by or 'unknown'}, {_when(build.times['created'])}",
        f"state:    {_state(build)}, since {_when(build.times[build.state])}",
        f"attempts: {build.attempts}",
        f"builder:  {build.worker or 'none yet'}",
    ]
    if build.state == "queued":
        lines.append(f"waits:    {why_it_waits(asked, builders)}")
    if _at(build):
        left = "" if at.eta_s is None else f", about {spelled(at.eta_s)} left"
        lines.append(
            f"step:     {at.number} of {at.steps}, {at.step}: {at.phase}, {spelled(at.elapsed_s)}{left}"
        )
    if build.error is not None:
        lines.append(f"error:    {build.error.message}")
        lines += [f"          {line}" for line in build.error.remedy.splitlines()]
        lines += [f"          | {line}" for line in build.error.log_end.splitlines()]
    return "\n".join(lines)


async def print_log(connection: Connection, build_id: str, follow: bool) -> None:
    """The lines that are kept; with `follow` those to come, until the build has ended."""
    after = builds_api.FIRST
    while True:
        found = await builds_api.follow(connection, build_id, after)
        for line in found.lines:
            sys.stdout.write(f"{line.step} | {line.text}\n")
        sys.stdout.flush()
        if not found.lines:
            if found.build.ended or not follow:
                return
            await asyncio.sleep(_LOOK_EVERY_S)
        after = found.after


def _at(build: EngineBuild) -> bool:
    return build.progress.steps > 0


def _state(build: EngineBuild) -> str:
    return "cancelling" if build.cancelling else build.state


def _took(build: EngineBuild) -> str:
    began = build.times.get("running")
    if began is None:
        return ""
    end = build.times[build.state] if build.ended else None
    return spelled(build.progress.elapsed_s if end is None else max(0, end - began) / 1000)


def _when(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms // 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"
