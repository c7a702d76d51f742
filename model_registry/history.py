"""History: the last versions of each declared object, and what changed between two of them. Pure.

`scripts/commit.lua` keeps them, in the same step that changes the object.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from model_registry.changes import read
from model_registry.errors import UnknownVersionError
from model_registry.manifest_fields import written
from model_registry.snapshot import Stored


class Kept(NamedTuple):
    """What an object was from `version` of the registry on."""

    version: int
    at_ms: int | None
    """Unix milliseconds of Redis; None: since before its history was kept."""
    item: Stored | None
    """None: it was deleted, or this release does not understand it."""


class FieldChange(NamedTuple):
    """One field that is not as it was; values as in JSON."""

    field: str
    before: Any
    after: Any


def kept_of(kind: str, name: str, text: str | None) -> tuple[Kept, ...]:
    """From a field of the history, the oldest first."""
    rows = json.loads(text) if text else ()
    return tuple(
        Kept(int(version), int(at_ms) if at_ms else None, read(kind, name, document) if document else None)
        for version, at_ms, document in rows
    )


def earlier(kind: str, name: str, kept: Sequence[Kept], to: int | None) -> Stored:
    """What the object was at version `to`, or else before its last change.

    Raises UnknownVersionError, naming those that there are.
    """
    if to is None:
        found = next((one.item for one in reversed(kept[:-1]) if one.item is not None), None)
    else:
        found = next((one.item for one in kept if one.version == to), None)
    if found is None:
        raise UnknownVersionError(kind, name, to, [one.version for one in kept if one.item is not None])
    return found


def field_changes(before: Stored | None, after: Stored) -> tuple[FieldChange, ...]:
    """Fields that differ; of a new object, those that do not have their default."""
    if before is None:
        return tuple(FieldChange(field, None, value) for field, value in written(after).items())
    new, old = after.model_dump(mode="json"), before.model_dump(mode="json")
    return tuple(
        FieldChange(field, old.get(field), value) for field, value in new.items() if old.get(field) != value
    )
