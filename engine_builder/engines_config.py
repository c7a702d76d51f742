"""Settings of engine packages: where they are kept, and whose are trusted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints


class EnginesConfig(BaseModel):
    """Where engines are published, and whose signatures count."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    store: Annotated[str, StringConstraints(pattern=r"^\S(.{0,1022}\S)?$")] | None = None
    """Folder, or URL that fsspec opens (`s3://bucket/engines`). Default: `engines` in the state folder."""
    signing_key: Path | None = None
    """PEM file with the Ed25519 private key that new engines are signed by. Default: `engine-signing.pem`
    in the state folder, made when it is first needed."""
    trusted_keys: tuple[Path, ...] = ()
    """PEM files with Ed25519 public keys whose engines are trusted, besides that of `signing_key`."""
    allow_unsigned: bool = False
    """Engines without a signature are taken, too; whoever signed one must still be trusted."""
    all_models: Path | None = None
    """Folder of TensorRT-LLM's Python models for Triton (`triton_backend/all_models` of the release that will
    serve): packages of its engines get their files from there."""
    keep_days: Annotated[float, Field(ge=0, le=3650)] = 7.0
    """Garbage collection leaves younger engines alone: their deployment may be on its way."""
