"""Cache: the last view of the registry on disk, for a process that starts while Redis is away.

The file holds tenants and key hashes, so only its owner may read it. It is replaced whole, never changed.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from model_registry.changes import Position, read
from model_registry.kinds import Ref, encode
from model_registry.snapshot import Stored
from telemetry.whole_file import write_whole

_log = logging.getLogger(__name__)
FORMAT = 1


class Cached(NamedTuple):
    """A view as it was when written."""

    position: Position
    objects: Mapping[Ref, Stored]
    confirmed_at_s: float
    """Unix seconds at which the registry last agreed with it."""


def save(path: Path, cached: Cached) -> None:
    """Replace the file atomically, mode 0600. Raises OSError."""
    content = {
        "format": FORMAT,
        "position": cached.position,
        "confirmed_at_s": cached.confirmed_at_s,
        "objects": [[*ref, encode(item)] for ref, item in cached.objects.items()],
    }
    write_whole(path, json.dumps(content), mode=0o600, synced=True)


def restore(path: Path) -> Cached | None:
    """What the file holds; None when there is none, or, with a log line, when it cannot be used."""
    try:
        content = json.loads(path.read_text("utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']!r} is not {FORMAT}")
        lineage, version, last = content["position"]
        found = {(kind, name): read(kind, name, document) for kind, name, document in content["objects"]}
        objects = {ref: item for ref, item in found.items() if item is not None}
        position = Position(str(lineage), int(version), str(last))
        return Cached(position, objects, float(content["confirmed_at_s"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        _log.warning("registry cache ignored", extra={"path": str(path), "error": repr(error)})
        return None
