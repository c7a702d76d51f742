"""Looks at a package as a whole: who signed it, is it complete, and is what is served what was signed?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from engine_builder.checkpoint import Checkpoint
from engine_builder.errors import CheckpointError, PackageError, SignatureError
from engine_builder.package.locate import LOCATION_FILE, served_files
from engine_builder.package.manifest import files_below
from engine_builder.package.signing import Trust
from engine_builder.package.verify import SERVE_DIR, Progress, verify
from engine_builder.preflight.problems import Look, Problem
from engine_builder.preflight.subject import Subject


def signature(subject: Subject, trust: Trust, progress: Progress | None = None) -> Iterator[Problem]:
    """A manifest that is not to be trusted, and files that are not as it says."""
    if subject.package is None:
        return
    try:
        _, flaws = verify(subject.package, trust, progress)
    except SignatureError as error:
        yield Problem(str(error), error.remedy)
        return
    except PackageError as error:
        yield Problem(str(error), error.remedy)
        return
    for flaw in flaws:
        yield Problem(f"{flaw.path} is {flaw.what}", "fetch the engine anew from its store")


def served(subject: Subject) -> Iterator[Problem]:
    """Files below `serve/` that somebody has changed since the engine was fetched."""
    if subject.package is None or subject.location is None:
        return
    wanted = dict(served_files(subject.package, subject.location))
    folder = subject.package / SERVE_DIR
    for path, text in wanted.items():
        file = folder / path
        if not file.is_file() or file.read_text(encoding="utf-8", errors="replace") != text:
            yield Problem(
                f"{SERVE_DIR}/{path} is {'changed' if file.is_file() else 'missing'}",
                "fetch the engine anew; what should differ belongs into its spec or profile",
            )
    for path in sorted(set(files_below(folder)) - set(wanted) - {LOCATION_FILE}):
        if "__pycache__" not in path:
            yield Problem(f"{SERVE_DIR}/{path} is not part of the engine", "remove it")


def runtime(subject: Subject) -> Iterator[Problem]:
    """CPU engines under a manifest of a real one, or the other way round."""
    if subject.manifest is None:
        return
    emulated = [model.name for model in subject.models.values() if model.emulated]
    if subject.manifest.runtime != "emulated" and emulated:
        yield Problem(
            f"the manifest says {subject.manifest.runtime}, and {', '.join(emulated)} run on a CPU engine",
            "package the engine anew with its own runtime",
        )
    if subject.manifest.runtime == "emulated" and subject.models and not emulated:
        yield Problem(
            "the manifest says emulated, and no model runs on a CPU engine",
            "package the engine anew with its own runtime",
        )


def checkpoint(subject: Subject) -> Iterator[Problem]:
    """Weights that stayed where they are, and are others by now. Reads them all; not seen from elsewhere."""
    manifest, location = subject.manifest, subject.location
    if manifest is None or manifest.own_weights or location is None or not Path(location.checkpoint).is_dir():
        return
    try:
        found = Checkpoint.open(location.checkpoint).digest()
    except CheckpointError as error:
        yield Problem(str(error), error.remedy)
        return
    if found != manifest.checkpoint_digest:
        yield Problem(
            f"{location.checkpoint} is not the checkpoint that the engine was made for",
            "bring back that checkpoint, or build an engine for this one",
        )


LOOKS = (Look("served_as_signed", served), Look("runtime", runtime), Look("checkpoint", checkpoint))
