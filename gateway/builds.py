"""Engine builds, for operators by the admin API; builders themselves talk to Redis.

POST /admin/v1/builds              ask for an engine; one that is being built already is joined
GET  /admin/v1/builds              ?limit=   the newest first
GET  /admin/v1/builds/{id}
GET  /admin/v1/builds/{id}/log     ?after=   the lines after a cursor, and the next cursor
POST /admin/v1/builds/{id}/cancel
GET  /admin/v1/builders            those that are there or were, the last seen first
"""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec
from aiohttp import web
from pydantic import ValidationError

from gateway.admin import require_admin
from gateway.api.errors import bad_request
from gateway.json_answer import json_answer
from gateway.query_limit import limit_of
from model_registry.build_jobs.entities import AskedBuild, EngineBuild
from model_registry.build_jobs.store import BuildStore
from model_registry.engine_specs import EngineSpec
from model_registry.snapshot import Snapshot

_MOST = 1000
_LIMIT = 50
_CURSOR = re.compile(r"\d{1,20}-\d{1,20}")
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._/-]{0,126}[A-Za-z0-9])?")
_DIGEST = re.compile(r"[0-9a-f]{64}")


def build_routes(builds: BuildStore, snapshot: Callable[[], Snapshot]) -> list[web.AbstractRouteDef]:
    """The routes; errors of packages below are left to the application's error table."""

    async def ask(request: web.Request) -> web.Response:
        require_admin(snapshot(), request)
        return json_answer({"build": await builds.ask(await _asked(request))})

    async def newest(request: web.Request) -> web.Response:
        require_admin(snapshot(), request)
        return json_answer({"builds": await builds.newest(limit_of(request, _LIMIT, _MOST))})

    async def one(request: web.Request) -> web.Response:
        require_admin(snapshot(), request)
        return json_answer({"build": await builds.get(request.match_info["id"])})

    async def log(request: web.Request) -> web.Response:
        require_admin(snapshot(), request)
        build_id, after = request.match_info["id"], request.query.get("after", "0-0")
        if not _CURSOR.fullmatch(after):
            raise bad_request("after must be a cursor that an earlier answer gave", "after")
        build: EngineBuild = await builds.get(build_id)  # before its log, so that an ended one's log is all
        page = await builds.log(build_id, after)
        return json_answer({"build": build, "lines": page.lines, "after": page.after})

    async def cancel(request: web.Request) -> web.Response:
        require_admin(snapshot(), request)
        return json_answer({"build": await builds.cancel(request.match_info["id"])})

    async def builders(request: web.Request) -> web.Response:
        require_admin(snapshot(), request)
        return json_answer({"builders": await builds.builders()})

    return [
        web.get("/admin/v1/builders", builders),
        web.post("/admin/v1/builds", ask),
        web.get("/admin/v1/builds", newest),
        web.get("/admin/v1/builds/{id}", one),
        web.get("/admin/v1/builds/{id}/log", log),
        web.post("/admin/v1/builds/{id}/cancel", cancel),
    ]


async def _asked(request: web.Request) -> AskedBuild:
    try:
        asked = msgspec.json.decode(await request.read(), type=AskedBuild)
        EngineSpec.model_validate(asked.spec)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise bad_request(f"The body is not what this path takes: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(["spec", *map(str, first["loc"])])
        raise bad_request(f"{where}: {first['msg']}", where) from error
    if not _NAME.fullmatch(asked.engine):
        raise bad_request("engine must be a name: 1-128 of A-Z a-z 0-9 . _ / -", "engine")
    if not _DIGEST.fullmatch(asked.digest):
        raise bad_request("digest must be the engine's SHA-256, 64 digits of 0-9 a-f", "digest")
    return asked
