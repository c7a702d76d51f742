"""Manifest files: found on disk, and sent to the gateway as one change."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from enginehouse.api import AdminClient
from enginehouse.connection import Connection
from enginehouse.differences import Change
from enginehouse.errors import CommandError
from model_registry.manifests import key_variables
from tenancy.keys import digest

STDIN = "-"
SUFFIXES = (".yaml", ".yml", ".json")


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """One file, not yet understood: the gateway validates all of them together."""

    name: str
    text: str


def read_manifests(paths: Iterable[str]) -> list[ManifestFile]:
    """The files named, those in folders named (in order of their names), and stdin for `-`."""
    found: list[ManifestFile] = []
    for path in paths:
        if path == STDIN:
            found.append(ManifestFile("<stdin>", sys.stdin.read()))
        else:
            found += [_read(file) for file in _files(Path(path))]
    return found


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES)
    if not files:
        raise CommandError(f"no manifest in {path}", f"files must end with {', '.join(SUFFIXES)}")
    return files


def _read(file: Path) -> ManifestFile:
    try:
        return ManifestFile(str(file), file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CommandError(f"cannot read {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CommandError(f"{file} is not UTF-8 text") from error


async def apply_files(connection: Connection, files: Sequence[ManifestFile], dry_run: bool) -> list[Change]:
    """Have the gateway apply `files`, all or nothing; `dry_run` only validates."""
    body = {
        "files": [{"name": file.name, "text": file.text} for file in files],
        "dry_run": dry_run,
        "key_hashes": _key_hashes(files),
    }
    async with AdminClient(connection) as api:
        answer: Any = await api.post("apply", body)
    return [Change.of(item) for item in answer["applied"]]


def _key_hashes(files: Sequence[ManifestFile]) -> dict[str, str]:
    """Hashes of the keys that manifests take from this process's environment; no key travels."""
    wanted = key_variables((file.name, file.text) for file in files)
    return {name: digest(os.environ[name]) for name in sorted(wanted) if name in os.environ}
