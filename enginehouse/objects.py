"""Objects of the registry, read and changed through the admin API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from enginehouse.api import AdminClient
from enginehouse.connection import Connection
from enginehouse.differences import Change


@dataclass(frozen=True, slots=True)
class Objects:
    """Objects of one kind, as the registry has them."""

    kind: str
    """As the registry spells it: `Model`."""
    items: list[dict[str, Any]]
    note: str | None
    """Why this may be out of date; None when it is not."""


async def fetch(connection: Connection, kind: str, name: str | None = None) -> Objects:
    """All objects of a kind, or the one called `name`."""
    async with AdminClient(connection) as api:
        if name is None:
            answer = await api.get(f"objects/{quote(kind)}")
            return Objects(answer["kind"], answer["items"], answer["note"])
        answer = await api.get(f"objects/{quote(kind)}/{quote(name)}")
        return Objects(answer["kind"], [answer["object"]], answer["note"])


async def remove(connection: Connection, kind: str, name: str, cascade: bool) -> list[str]:
    """Delete an object, with `cascade` also what needs it; returns what is gone, as `kind/name`."""
    query = "?cascade=true" if cascade else ""
    async with AdminClient(connection) as api:
        answer = await api.delete(f"objects/{quote(kind)}/{quote(name)}{query}")
    return [f"{item['kind'].lower()}/{item['name']}" for item in answer["deleted"]]


async def create_key(
    connection: Connection, name: str, tenant: str, admin: bool, scope: Mapping[str, Any] | None = None
) -> str:
    """A new API key of a tenant, in clear: the registry keeps its hash alone.

    `scope`: `models`, `profiles` and `expires_at` of `model_registry.tenants.ApiKey`.
    """
    async with AdminClient(connection) as api:
        answer = await api.post("keys", {"name": name, "tenant": tenant, "admin": admin, **(scope or {})})
    return str(answer["key"])


async def revoke_key(connection: Connection, name: str) -> None:
    """Let nobody in by a key any more."""
    async with AdminClient(connection) as api:
        await api.post(f"keys/{quote(name)}/revoke", {})


async def history(connection: Connection, kind: str, name: str) -> list[dict[str, Any]]:
    """The versions of an object that are kept, the oldest first."""
    async with AdminClient(connection) as api:
        answer = await api.get(f"history/{quote(kind)}/{quote(name)}")
    return list(answer["versions"])


async def rollback(
    connection: Connection, kind: str, name: str, to: int | None, dry_run: bool
) -> list[Change]:
    """Have an earlier version of an object stored again."""
    body = {"kind": kind, "name": name, "to": to, "dry_run": dry_run}
    async with AdminClient(connection) as api:
        answer = await api.post("rollback", body)
    return [Change.of(item) for item in answer["applied"]]
