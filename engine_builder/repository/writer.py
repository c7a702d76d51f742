"""The model repository on disk: one folder per model, `config.pbtxt` and version 1 in it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from engine_builder.errors import PackageError
from engine_builder.repository.configs import ModelSpec, model_config

CONFIG_FILE = "config.pbtxt"
VERSION = "1"


def write_repository(root: Path, models: Sequence[ModelSpec]) -> None:
    """Writes each model to `root/<name>`, replacing what is there; other folders stay.

    Raises ValueError when two models share a name, before anything is written; PackageError when a config
    does not read back through Triton's own protobuf as what it was written from.
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
    config = model_config(spec)
    text = text_format.MessageToString(config)
    if text_format.Parse(text, model_config_pb2.ModelConfig()) != config:
        raise PackageError(f"the config.pbtxt of {spec.name} does not read back as it was written")
    (folder / CONFIG_FILE).write_text(text, encoding="utf-8")
    if spec.model_file is not None:
        shutil.copyfile(spec.model_file, version / "model.py")
    for name, text in spec.files.items():
        (version / name).parent.mkdir(parents=True, exist_ok=True)
        (version / name).write_text(text, encoding="utf-8")
