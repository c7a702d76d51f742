"""The model repository on disk: one folder per model, `config.pbtxt` and version 1 in it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from google.protobuf import text_format

from engine_builder.repository.configs import ModelSpec, model_config

VERSION = "1"


def write_repository(root: Path, models: Sequence[ModelSpec]) -> None:
    """Writes each model to `root/<name>`, replacing what is there; other folders stay.

    Raises ValueError when two models share a name, before anything is written.
    """
    names = [model.name for model in models]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise ValueError(f"model names must differ within one repository; twice: {', '.join(doubled)}")
    root.mkdir(parents=True, exist_ok=True)
    for model in models:
        _write_model(root / model.name, model)


def _write_model(folder: Path, spec: ModelSpec) -> None:
    if folder.exists():
        shutil.rmtree(folder)
    version = folder / VERSION
    version.mkdir(parents=True)
    (folder / "config.pbtxt").write_text(text_format.MessageToString(model_config(spec)), encoding="utf-8")
    if spec.model_file is not None:
        shutil.copyfile(spec.model_file, version / "model.py")
    for name, text in spec.files.items():
        (version / name).write_text(text, encoding="utf-8")
