"""Objects of the registry, read and changed through the admin API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from enginehouse.api import AdminClient
from enginehouse.connection import Connection


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


async def create_key(connection: Connection, name: str, tenant: str, admin: bool) -> str:
    """A new API key of a tenant, in clear: the registry keeps its hash alone."""
    async with AdminClient(connection) as api:
        answer = await api.post("keys", {"name": name, "tenant": tenant, "admin": admin})
    return str(answer["key"])
