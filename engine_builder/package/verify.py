"""Verification of a packaged engine: its signature, and every file against the manifest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from engine_builder.package.manifest import (
    MANIFEST_FILE,
    SIGNATURE_FILE,
    Manifest,
    digest_of,
    files_below,
    parse_manifest,
    read_bytes,
)
from engine_builder.package.signing import Trust

SERVE_DIR = "serve"
"""What `fetch` adds for the place of serving; no part of the engine."""

Progress = Callable[[int, int], None]
"""Takes bytes done and bytes in all."""


class Flaw(NamedTuple):
    """A file that is not as it was signed."""

    path: str
    what: str
    """`missing`, `changed`, `not part of the engine` or `a link`: what it leads to may change at any time."""


def verify(folder: Path, trust: Trust, progress: Progress | None = None) -> tuple[Manifest, list[Flaw]]:
    """The manifest, and the files that differ from it; none in a sound engine.

    Raises PackageError without a readable manifest, and SignatureError for one that is not to be trusted.
    """
    manifest = signed_manifest(folder, trust)
    flaws, done, total = [], 0, sum(entry.size for entry in manifest.files.values())
    own = {MANIFEST_FILE, SIGNATURE_FILE, *manifest.files}
    served = f"{SERVE_DIR}/"
    links = {path for path in _below(folder) if (folder / path).is_symlink() and not path.startswith(served)}
    for path, entry in manifest.files.items():
        file = folder / path
        if path in links:
            pass
        elif not file.is_file():
            flaws.append(Flaw(path, "missing"))
        elif file.stat().st_size != entry.size or digest_of(file) != entry:
            flaws.append(Flaw(path, "changed"))
        done += entry.size
        if progress is not None:
            progress(done, total)
    flaws += [Flaw(path, "a link") for path in sorted(links)]
    flaws += [
        Flaw(path, "not part of the engine")
        for path in files_below(folder)
        if path not in own and path not in links and not path.startswith(served)
    ]
    return manifest, flaws


def _below(folder: Path) -> Iterator[str]:
    return (path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def signed_manifest(folder: Path, trust: Trust) -> Manifest:
    """The manifest of a folder, its signature checked. Raises PackageError and SignatureError."""
    data, signature = read_bytes(folder), folder / SIGNATURE_FILE
    trust.check(data, signature.read_bytes() if signature.is_file() else None)
    return parse_manifest(data, str(folder / MANIFEST_FILE))
