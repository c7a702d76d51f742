"""The admin API: what operators read and change in the registry, for callers with an admin key.

    POST   /admin/v1/apply                  manifests, all or none
    GET    /admin/v1/objects/{kind}[/{name}]
    DELETE /admin/v1/objects/{kind}/{name}  ?cascade=true deletes what needs it, too
    GET    /admin/v1/history/{kind}/{name}  the last versions of an object
    POST   /admin/v1/rollback               an earlier version of an object, again
    POST   /admin/v1/keys                   a new API key, shown this once
    POST   /admin/v1/keys/{name}/revoke     it lets nobody in ever again
    GET    /admin/v1/snapshot               what this process serves from

Writes need Redis: without it they answer 503. Reads then come from the snapshot and say so. While an
emptied registry is held back, a write puts what is served back first, so that it changes what its sender saw.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

import msgspec
from aiohttp import web
from pydantic import ValidationError

from gateway.api.errors import INVALID_REQUEST, PERMISSION, ApiError, bad_request
from gateway.json_answer import json_answer
from model_registry import pool_conflicts
from model_registry.entities import Endpoint, Profile
from model_registry.errors import ManifestErrors, NameTakenError, RegistryUnavailableError, UnknownObjectError
from model_registry.history import Kept, earlier, field_changes
from model_registry.kinds import DECLARED, Ref, kind_named, kind_of, ref_of
from model_registry.manifests import parse_manifests, to_manifest
from model_registry.snapshot import Snapshot, Stored
from model_registry.store import RegistryStore
from model_registry.tenants import ApiKey
from model_registry.transactions import Applied
from model_registry.watcher import Watcher
from router.policies import PolicyError, make
from tenancy.keys import authenticate, new_key

SEEN_WITHIN_S = 0.5
"""How long a write waits until this process serves it, before it answers anyway."""
MAX_MISTAKES_IN_MESSAGE = 20
_FORMS = {
    "name": "must be 1-128 of A-Z a-z 0-9 . _ / -",
    "profiles": "must be lower-case words",
    "expires_at": "must be a time with its zone, such as 2030-01-31T00:00:00Z",
}


class ManifestFile(msgspec.Struct, forbid_unknown_fields=True):
    """One file as the client read it."""

    name: str
    text: str


class ApplyBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /admin/v1/apply`."""

    files: list[ManifestFile]
    dry_run: bool = False
    key_hashes: dict[str, str] = {}
    """Hex SHA-256 by variable name, for manifests with `key_from_env`: the client hashes, no key travels."""


class KeyBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /admin/v1/keys`."""

    tenant: str
    name: str
    admin: bool = False
    models: list[str] | None = None
    profiles: list[str] | None = None
    expires_at: datetime | None = None


class RollbackBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /admin/v1/rollback`."""

    kind: str
    name: str
    to: int | None = None
    """A version of its history; None: what it was before its last change."""
    dry_run: bool = False


class View(NamedTuple):
    """What a read answers from."""

    snapshot: Snapshot
    source: dict[str, Any]


Body = TypeVar("Body")


def admin_routes(store: RegistryStore, watcher: Watcher) -> list[web.AbstractRouteDef]:
    """The admin API's routes."""
    return AdminApi(store, watcher).routes()


def require_admin(snapshot: Snapshot, request: web.Request) -> None:
    """Raise ApiError 403 for a caller whose key may not use the admin API."""
    if not authenticate(snapshot, request.headers.get("Authorization")).admin:
        message = "This key may not use the admin API; send one that was created with admin rights."
        raise ApiError(403, message, PERMISSION, "admin_key_required")


class AdminApi:
    """The handlers; errors of packages below are left to the application's error table."""

    def __init__(self, store: RegistryStore, watcher: Watcher) -> None:
        self._store = store
        self._watcher = watcher

    def routes(self) -> list[web.AbstractRouteDef]:
        """Paths and handlers."""
        return [
            web.post("/admin/v1/apply", self.apply),
            web.get("/admin/v1/objects/{kind}", self.list_objects),
            web.get("/admin/v1/objects/{kind}/{name:.+}", self.get_object),
            web.delete("/admin/v1/objects/{kind}/{name:.+}", self.delete_object),
            web.get("/admin/v1/history/{kind}/{name:.+}", self.history),
            web.post("/admin/v1/rollback", self.rollback),
            web.post("/admin/v1/keys", self.create_key),
            web.post("/admin/v1/keys/{name:.+}/revoke", self.revoke_key),
            web.get("/admin/v1/snapshot", self.snapshot),
        ]

    async def apply(self, request: web.Request) -> web.Response:
        """Check the manifests whole, then store them all; `dry_run` only says what would change."""
        self._require_admin(request)
        body = await _body(request, ApplyBody)
        base = self._watcher.current if self._watcher.held_back else await self._store.load()
        files = [(file.name, file.text) for file in body.files]
        try:
            objects = await asyncio.to_thread(
                parse_manifests, files, registry=base, key_hashes=body.key_hashes
            )
        except ManifestErrors as error:
            return _mistakes(error)
        _check_policies(objects)
        applied = await self._write(objects, dry_run=body.dry_run)
        return json_answer({"version": applied.version, "applied": _told(applied, map(ref_of, objects))})

    async def history(self, request: web.Request) -> web.Response:
        """The versions of an object that are kept, the oldest first, each with what it changed."""
        self._require_admin(request)
        kind, name = kind_named(request.match_info["kind"]), request.match_info["name"]
        kept = await self._store.history(kind, name)
        if not kept and await self._store.get(kind, name) is None:
            raise UnknownObjectError(kind, name)
        return json_answer({"kind": kind, "name": name, "versions": list(_versions(kept))})

    async def rollback(self, request: web.Request) -> web.Response:
        """Store an earlier version of an object again, by the rules for any other change."""
        self._require_admin(request)
        body = await _body(request, RollbackBody)
        kind = kind_named(body.kind)
        item = earlier(kind, body.name, await self._store.history(kind, body.name), body.to)
        _check_policies([item])
        there = pool_conflicts.by_ref((await self._view()).snapshot.objects())
        pool_conflicts.check(pool_conflicts.sharing([item], there | {ref_of(item): item}))
        applied = await self._write([item], dry_run=body.dry_run)
        return json_answer({"version": applied.version, "applied": _told(applied, [ref_of(item)])})

    async def list_objects(self, request: web.Request) -> web.Response:
        """Every object of a kind, by name."""
        self._require_admin(request)
        kind = kind_named(request.match_info["kind"])
        view = await self._view()
        items = sorted((i for i in view.snapshot.objects() if kind_of(i) == kind), key=lambda i: i.name)
        return json_answer(
            {"kind": kind, **view.source, "items": [item.model_dump(mode="json") for item in items]}
        )

    async def get_object(self, request: web.Request) -> web.Response:
        """One object, and its manifest."""
        self._require_admin(request)
        ref = kind, name = kind_named(request.match_info["kind"]), request.match_info["name"]
        view = await self._view()
        item = next((item for item in view.snapshot.objects() if ref_of(item) == ref), None)
        if item is None:
            raise UnknownObjectError(kind, name)
        found = {"object": item.model_dump(mode="json"), "manifest": to_manifest(item)}
        return json_answer({"kind": kind, "name": name, **view.source, **found})

    async def delete_object(self, request: web.Request) -> web.Response:
        """Delete one object; one that others need only with `cascade=true`."""
        self._require_admin(request)
        kind, name = kind_named(request.match_info["kind"]), request.match_info["name"]
        if kind not in DECLARED:
            owner = "Rollout" if kind == "RolloutStatus" else "Deployment"
            message = f"{kind} objects belong to the controller and cannot be deleted; delete their {owner}"
            raise ApiError(405, message, code="read_only_kind")
        applied = await self._write([], delete=[(kind, name)], cascade=_flag(request, "cascade"))
        deleted = [
            {"kind": kind, "name": name} for (kind, name), what in applied.outcomes if what == "deleted"
        ]
        return json_answer({"version": applied.version, "deleted": deleted})

    async def create_key(self, request: web.Request) -> web.Response:
        """A new key of a tenant. Only its hash is stored; the answer is the one place that shows it."""
        self._require_admin(request)
        body = await _body(request, KeyBody)
        clear, digest = new_key()
        try:
            key = ApiKey.model_validate({**msgspec.structs.asdict(body), "sha256": digest})
        except ValidationError as error:
            field = str(error.errors()[0]["loc"][0])
            raise bad_request(f"{field} {_FORMS.get(field, _FORMS['name'])}", field) from error
        if ref_of(key) in map(ref_of, (await self._view()).snapshot.objects()):
            raise NameTakenError(
                f"an ApiKey named {key.name!r} exists; delete it first, or take another name"
            )
        applied = await self._write([key])
        answer = {"key": clear, "name": key.name, "tenant": key.tenant, "admin": key.admin}
        return json_answer({**answer, "version": applied.version}, status=201)

    async def revoke_key(self, request: web.Request) -> web.Response:
        """Let nobody in by a key any more, for good."""
        self._require_admin(request)
        name = request.match_info["name"]
        key = await self._store.get("ApiKey", name)
        if not isinstance(key, ApiKey):
            raise UnknownObjectError("ApiKey", name)
        applied = await self._write([key.model_copy(update={"revoked": True})])
        return json_answer({"name": name, "tenant": key.tenant, "revoked": True, "version": applied.version})

    async def snapshot(self, request: web.Request) -> web.Response:
        """What this process serves from, and how old that is."""
        self._require_admin(request)
        watcher, current = self._watcher, self._watcher.current
        endpoints = [item for item in current.objects() if isinstance(item, Endpoint)]
        return json_answer(
            {
                "version": current.version,
                "age_s": _finite(watcher.staleness_s),
                "connected": watcher.connected,
                "held_back": watcher.held_back,
                "pid": os.getpid(),
                "endpoints": [
                    endpoint.model_dump(mode="json", exclude={"server_schema"}) for endpoint in endpoints
                ],
            }
        )

    def _require_admin(self, request: web.Request) -> None:
        require_admin(self._watcher.current, request)

    async def _view(self) -> View:
        watcher = self._watcher
        if watcher.held_back is not None:
            return _from_snapshot(watcher, watcher.held_back)
        try:
            snapshot = await self._store.load()
        except RegistryUnavailableError as error:
            return _from_snapshot(watcher, f"the registry is away ({error}); this is what was last seen")
        return View(snapshot, {"version": snapshot.version, "source": "registry", "age_s": 0.0, "note": None})

    async def _write(
        self,
        objects: Sequence[Stored],
        *,
        delete: Sequence[Ref] = (),
        cascade: bool = False,
        dry_run: bool = False,
    ) -> Applied:
        if self._watcher.held_back is not None:
            served = [item for item in self._watcher.current.objects() if kind_of(item) in DECLARED]
            if dry_run:
                objects = [*served, *objects]
            else:
                await self._store.transact(served, floor=self._watcher.current.version)
        applied = await self._store.transact(objects, delete=delete, cascade=cascade, dry_run=dry_run)
        if not dry_run:
            await self._watcher.wait_for(applied.version, SEEN_WITHIN_S)
        return applied


def _told(applied: Applied, written: Iterable[Ref]) -> list[dict[str, Any]]:
    """What became of the objects `written`, in their order."""
    outcomes = dict(applied.outcomes)
    return [
        {
            "kind": ref[0],
            "name": ref[1],
            "change": outcomes[ref],
            "fields": [change._asdict() for change in applied.fields[ref]],
        }
        for ref in dict.fromkeys(written)
    ]


def _versions(kept: Iterable[Kept]) -> Iterator[dict[str, Any]]:
    before: Stored | None = None
    for version, at_ms, item in kept:
        changes = () if item is None else field_changes(before, item)
        yield {
            "version": version,
            "at_ms": at_ms,
            "deleted": item is None,
            "fields": [change._asdict() for change in changes],
            "manifest": None if item is None else to_manifest(item),
        }
        before = item


def _from_snapshot(watcher: Watcher, note: str) -> View:
    age_s = _finite(watcher.staleness_s)
    source = {"version": watcher.current.version, "source": "snapshot", "age_s": age_s, "note": note}
    return View(watcher.current, source)


async def _body(request: web.Request, shape: type[Body]) -> Body:
    try:
        return msgspec.json.decode(await request.read(), type=shape)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise bad_request(f"The body is not what this path takes: {error}") from error


def _flag(request: web.Request, name: str) -> bool:
    given = request.query.get(name, "false").lower()
    if given not in {"true", "false"}:
        raise bad_request(f"{name} must be true or false", name)
    return given == "true"


def _finite(age_s: float) -> float | None:
    return round(age_s, 3) if math.isfinite(age_s) else None


def _check_policies(objects: Iterable[Stored]) -> None:
    """Raise ApiError for a profile whose routing policy this gateway does not have."""
    for item in objects:
        if isinstance(item, Profile):
            try:
                make(item.policy, item.policy_options)
            except PolicyError as error:
                raise bad_request(f"Profile {item.name!r}: {error}", "policy") from error


def _mistakes(errors: ManifestErrors) -> web.Response:
    lines = [str(error) for error in errors.errors]
    more = len(lines) - MAX_MISTAKES_IN_MESSAGE
    shown = lines[:MAX_MISTAKES_IN_MESSAGE] + ([f"... and {more} more"] if more > 0 else [])
    error = {
        "message": "\n".join(shown),
        "type": INVALID_REQUEST,
        "param": None,
        "code": "invalid_manifest",
        "details": [asdict(error) for error in errors.errors],
    }
    return json_answer({"error": error}, status=400)
