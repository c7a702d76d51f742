"""Builds of a fleet, asked for and followed through the admin API."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec

from enginehouse.api import AdminClient
from enginehouse.connection import Connection
from enginehouse.errors import ApiError
from model_registry.build_jobs.entities import AskedBuild, BuilderSeen, EngineBuild, LogLine

FIRST = "0-0"
"""The cursor before the first line of a log."""


class Followed(NamedTuple):
    """A build, the lines of its log after a cursor, and the next cursor."""

    build: EngineBuild
    lines: list[LogLine]
    after: str


async def ask(connection: Connection, asked: AskedBuild) -> EngineBuild:
    """A build for the fleet's builders; one of the same engine that goes on is joined."""
    async with AdminClient(connection) as api:
        answer = await api.post("builds", msgspec.to_builtins(asked))
    return _build(answer["build"])


async def newest(connection: Connection, limit: int) -> list[EngineBuild]:
    """The last builds, the newest first."""
    async with AdminClient(connection) as api:
        answer = await api.get(f"builds?limit={limit}")
    return [_build(one) for one in answer["builds"]]


async def get(connection: Connection, build_id: str) -> EngineBuild:
    """One build."""
    async with AdminClient(connection) as api:
        answer = await api.get(f"builds/{quote(build_id)}")
    return _build(answer["build"])


async def follow(connection: Connection, build_id: str, after: str = FIRST) -> Followed:
    """What is new of a build."""
    async with AdminClient(connection) as api:
        answer = await api.get(f"builds/{quote(build_id)}/log?after={after}")
    lines = msgspec.convert(answer["lines"], list[LogLine])
    return Followed(_build(answer["build"]), lines, str(answer["after"]))


async def builders(connection: Connection) -> list[BuilderSeen]:
    """Builders that are there or were, the last seen first; none known to an older gateway."""
    async with AdminClient(connection) as api:
        try:
            answer = await api.get("builders")
        except ApiError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            return []
    return msgspec.convert(answer["builders"], list[BuilderSeen])


async def cancel(connection: Connection, build_id: str) -> EngineBuild:
    """Ask for its end."""
    async with AdminClient(connection) as api:
        answer = await api.post(f"builds/{quote(build_id)}/cancel", {})
    return _build(answer["build"])


def _build(answer: Any) -> EngineBuild:
    return msgspec.convert(answer, EngineBuild)
