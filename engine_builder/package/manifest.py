"""Manifest: what a packaged engine is, was made from, and holds; `manifest.json` in its folder.

Where and by whom it was built is left out: the same inputs give the same manifest but for `built_at` and the
bytes of what the tools wrote.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from engine_builder.errors import PackageError
from model_registry.cards import GoodputCard
from model_registry.engine_specs import BuildLane, EngineSpec, Runtime
from model_registry.engines import Sha256
from model_registry.entities import Name

FORMAT: Literal[1] = 1
MANIFEST_FILE = "manifest.json"
SIGNATURE_FILE = "manifest.sig"

Feature = Literal["stream", "stop", "seed", "logprobs", "cancel", "guided", "lora"]
"""What clients may ask of the engine, each tried by preflight."""


def _below(path: str) -> str:
    """A path that stays in the engine's folder."""
    if "\0" in path or any(part in ("", ".", "..") for part in path.split("/")):
        raise PydanticCustomError("path", "{path} is no path below the engine's folder", {"path": repr(path)})
    return path


class FileEntry(BaseModel):
    """One file of the package."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: Sha256
    size: Annotated[int, Field(ge=0)]
    """Bytes."""


class Manifest(BaseModel):
    """Everything that is known of one packaged engine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = FORMAT
    name: Name
    """`<spec>-<first digits of the engine's digest>`."""
    engine_digest: Sha256
    """Of all that went in (`engine_builder.identity.engine_digest`)."""
    lane: BuildLane
    runtime: Runtime
    version: str
    """Of TensorRT-LLM or vLLM, building and serving."""
    image: str | None = None
    """Container image that has this version; None: no released one is known."""
    gpu_class: str
    architecture: str | None = None
    """Of those GPUs: `sm90`; None where engines are not compiled for one, or it is not known."""
    gpus: Annotated[int, Field(ge=1)] = 1
    spec: EngineSpec
    """With nothing left open."""
    features: tuple[Feature, ...] = ()
    checkpoint_digest: Sha256
    own_weights: bool
    """False: the checkpoint's weights are loaded from where the checkpoint is."""
    tokenizer_digest: Sha256 | None = None
    """Over the tokenizer's files (`Checkpoint.tokenizer_digest`)."""
    template_digest: Sha256 | None = None
    """Of the chat template's text; None: the checkpoint has none."""
    vocab_size: Annotated[int, Field(ge=1)] | None = None
    """Of the model, from the checkpoint's config."""
    steps: Mapping[str, Sha256] = Field(default_factory=dict)
    """Keys of the steps that made it, by name."""
    card: GoodputCard | None = None
    """The plan's forecast."""
    built_at: AwareDatetime
    files: Mapping[Annotated[str, AfterValidator(_below)], FileEntry]
    """Every file of the folder but the manifest and its signature, by path."""

    def encoded(self) -> bytes:
        """The bytes of `manifest.json`, which are what is signed."""
        return (self.model_dump_json(indent=2) + "\n").encode()


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a packaged engine, unverified. Raises PackageError."""
    return parse_manifest(read_bytes(folder), str(folder / MANIFEST_FILE))


def read_bytes(folder: Path) -> bytes:
    """The bytes of a folder's manifest. Raises PackageError."""
    path = folder / MANIFEST_FILE
    try:
        return path.read_bytes()
    except OSError as error:
        raise PackageError(
            f"{path} cannot be read: {error.strerror}", "name the folder of a packaged engine"
        ) from error


def parse_manifest(data: bytes, where: str) -> Manifest:
    """The manifest in `data`. Raises PackageError, of a newer format one that says so."""
    try:
        found = json.loads(data)
        if isinstance(found, dict) and isinstance(found.get("format"), int) and found["format"] > FORMAT:
            raise PackageError(
                f"{where} has format {found['format']}, this release reads up to {FORMAT}",
                "use a release that is as new as the one that built the engine",
            )
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"])) or "the document"
        raise PackageError(f"{where}: {field}: {first['msg']}", "package the engine anew") from error
    except ValueError as error:
        raise PackageError(f"{where} is not JSON: {error}", "package the engine anew") from error


def digest_of(path: Path) -> FileEntry:
    """SHA-256 and size of a file."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(8 * 1024 * 1024):
            found.update(chunk)
    return FileEntry(sha256=found.hexdigest(), size=path.stat().st_size)


def files_below(folder: Path) -> list[str]:
    """Paths of all files below `folder`, sorted, with `/` between their parts."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def folder_name(name: str) -> str:
    """What a packaged engine's folder is called: a name's `/` would make folders of it."""
    return name.replace("/", "+")
