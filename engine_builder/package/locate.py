"""Fetching: a published engine, brought to where a model server finds it.

Triton's configurations hold absolute paths, and only the place of serving knows them. So a package has
`${engine_root}` in their place, as in TensorRT-LLM's own templates, and stays the same wherever it lies; what
is served is written beside it, to `serve/`.
"""

from __future__ import annotations

import re
import secrets
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from engine_builder.errors import PackageError
from engine_builder.package.assemble import LAUNCH_DIR, REPOSITORY_DIR
from engine_builder.package.manifest import Manifest, files_below
from engine_builder.package.signing import Trust
from engine_builder.package.store import download
from engine_builder.package.verify import SERVE_DIR, Progress, verify
from engine_builder.repository.engine_models import CHECKPOINT, GPUS, ROOT

LOCATION_FILE = "location.json"

_UNSAFE = re.compile(r"""["'\\$`#]|: """)
"""What ends or starts something in protobuf's text, YAML, JSON or a shell."""
_GPUS = re.compile(r"\d+([,;]\d+)*")


class Location(BaseModel):
    """What only the place of serving knows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    root: str
    """The package's folder as its server sees it."""
    checkpoint: str
    gpu_device_ids: str | None = None

    @classmethod
    def read(cls, folder: Path) -> Location | None:
        """That of a fetched package; None of one that was only published. Raises PackageError."""
        path = folder / SERVE_DIR / LOCATION_FILE
        if not path.is_file():
            return None
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise PackageError(f"{path} cannot be read", "fetch the engine anew") from error


def fetch(
    url: str,
    destination: Path,
    trust: Trust,
    *,
    served_at: str | None = None,
    checkpoint: str | None = None,
    gpu_device_ids: str | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """Copy an engine to `destination`, verify it, and write what a server loads to `destination/serve`.

    `served_at`: the folder as the server sees it, such as a mount in a container; default, `destination`.
    `checkpoint`: that of the engine's weights there, for lanes that load them from it; default, the spec's.
    `gpu_device_ids`: GPUs of the executor (`0,1;2,3`); default, all that the server sees. Nothing is left at
    `destination` when this fails. Raises PackageError, SignatureError and StoreError.
    """
    draft = destination.with_name(f".fetching-{secrets.token_hex(6)}")
    try:
        if destination.exists() and any(destination.iterdir()):
            raise PackageError(f"{destination} is not empty", "name a new folder, or remove that one")
        draft.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PackageError(
            f"{destination} cannot be a folder: {error.strerror}", "name a new folder that can be written"
        ) from error
    try:
        download(url, draft)
        shutil.rmtree(draft / SERVE_DIR, ignore_errors=True)
        manifest, flaws = verify(draft, trust, progress)
        if flaws:
            told = ", ".join(f"{flaw.path} ({flaw.what})" for flaw in flaws[:3])
            raise PackageError(f"{url} is not as it was signed: {told}", "publish the engine anew")
        root = served_at or str(destination.absolute())
        write_served(draft, manifest, root, checkpoint, gpu_device_ids)
        if destination.exists():
            destination.rmdir()
        draft.rename(destination)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return manifest


def write_served(
    folder: Path,
    manifest: Manifest,
    root: str,
    checkpoint: str | None = None,
    gpu_device_ids: str | None = None,
) -> None:
    """Write `serve/` of a package for a server that sees its folder at `root`, in place of what is there."""
    if not root.startswith("/"):
        raise PackageError(f"{root} is no absolute path", "model servers know no other")
    for what, value in (("served_at", root), ("checkpoint", checkpoint or manifest.spec.checkpoint)):
        if _UNSAFE.search(value) or not value.isprintable():
            raise PackageError(
                f"{what}: {value!r} cannot stand in configurations and scripts",
                "name a path without quotes, backslashes, $, `, #, and control characters",
            )
    if gpu_device_ids is not None and not _GPUS.fullmatch(gpu_device_ids):
        raise PackageError(
            f"gpu_device_ids: {gpu_device_ids!r} is no list of GPUs",
            "write 0,1 or, of two executors, 0,1;2,3",
        )
    location = Location(
        root=root.rstrip("/"),
        checkpoint=checkpoint or manifest.spec.checkpoint,
        gpu_device_ids=gpu_device_ids,
    )
    shutil.rmtree(folder / SERVE_DIR, ignore_errors=True)
    (folder / SERVE_DIR).mkdir()
    (folder / SERVE_DIR / LOCATION_FILE).write_text(location.model_dump_json(indent=2) + "\n", "utf-8")
    for path, text in served_files(folder, location):
        target = folder / SERVE_DIR / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        if target.suffix == ".sh":
            target.chmod(0o755)
    for model in _models(folder):
        (folder / SERVE_DIR / REPOSITORY_DIR / model / "1").mkdir(exist_ok=True)  # Triton wants one of each


def served_files(folder: Path, location: Location) -> Iterator[tuple[str, str]]:
    """Path and text of each file below `serve/`, as it is to be at a location."""
    values = {ROOT: location.root, CHECKPOINT: location.checkpoint}
    if location.gpu_device_ids is not None:
        values[GPUS] = location.gpu_device_ids
    for part in (REPOSITORY_DIR, LAUNCH_DIR):
        for path in files_below(folder / part):
            text = (folder / part / path).read_text(encoding="utf-8")
            for placeholder, value in values.items():
                text = text.replace(placeholder, shlex.quote(value) if path.endswith(".sh") else value)
            yield f"{part}/{path}", text


def _models(folder: Path) -> list[str]:
    repository = folder / REPOSITORY_DIR
    return [path.name for path in repository.iterdir() if path.is_dir()] if repository.is_dir() else []
