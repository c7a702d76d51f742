"""Change records and contents: what a reader of the registry gets from Redis, as values.

A record belongs to a history: it carries the history's lineage (fixed when an empty registry is first
written) and the id of the record before it. So a reader sees when Redis has lost data and gone on from an
older copy or from nothing, even if the version numbers happen to fit.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import ValidationError

from model_registry.kinds import KINDS, Ref, decode
from model_registry.snapshot import Stored

_log = logging.getLogger(__name__)


class Position(NamedTuple):
    """A point of a history; `last` is the id of the change record that led there."""

    lineage: str
    version: int
    last: str


NOWHERE = Position("", 0, "0-0")
"""A registry that nothing was ever written to."""


class Contents(NamedTuple):
    """Everything the registry holds at one position."""

    position: Position
    objects: Mapping[Ref, Stored]
    now_ms: int
    """Redis time of reading, Unix milliseconds."""


class Change(NamedTuple):
    """One object stored (`item`) or removed (None)."""

    ref: Ref
    item: Stored | None


class ChangeRecord(NamedTuple):
    """What led from the change `previous` to `position`."""

    position: Position
    previous: str
    changes: tuple[Change, ...]


def read(kind: str, name: str, document: str) -> Stored | None:
    """The object in a document; None, and a log line, for one that this release cannot understand."""
    try:
        return decode(kind, document)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False)]
        _log.warning(
            "stored object ignored: not understood by this release",
            extra={"kind": kind, "object_name": name, "problems": problems},
        )
        return None


def position_of(reply: Sequence[Any]) -> Position:
    """From lineage, version and last change id, absent where nothing was written yet."""
    lineage, version, last = reply
    return Position(lineage or "", int(version or 0), last or NOWHERE.last)


def contents_of(reply: Sequence[Any]) -> Contents:
    """From what `load.lua` returns."""
    now_ms, lineage, version, last, *hashes = reply
    objects: dict[Ref, Stored] = {}
    for kind, flat in zip(KINDS, hashes, strict=True):
        for name, document in zip(flat[::2], flat[1::2], strict=True):
            if (item := read(kind, name, document)) is not None:
                objects[kind, name] = item
    return Contents(position_of((lineage, version, last)), objects, int(now_ms))


def records_of(reply: Any) -> list[ChangeRecord]:
    """From an XREAD of the change stream. Raises ValueError for records that are not ours."""
    entries = [entry for _, stream in reply or () for entry in stream]
    try:
        return [_record(str(change_id), fields) for change_id, fields in entries]
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a change record: {error!r}") from error


def _record(change_id: str, fields: Mapping[str, str]) -> ChangeRecord:
    changes = []
    for op, kind, name, document in json.loads(fields["changes"]):
        item = read(kind, name, document) if op == "put" else None
        changes.append(Change((kind, name), item))
    position = Position(fields["lineage"], int(fields["version"]), change_id)
    return ChangeRecord(position, fields["previous"], tuple(changes))
