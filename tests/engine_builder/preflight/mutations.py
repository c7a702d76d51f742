"""Mutations of a good fetched engine, as the corpus writes them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

REPOSITORY = "serve/repository"


def mutate(folder: Path, mutation: Mapping[str, Any]) -> None:
    """Change one thing; fails the test where there is nothing to change."""
    if "field" in mutation or "parameter" in mutation or "name" in mutation:
        _mutate_config(folder, mutation)
        return
    match mutation:
        case {"replace": path, "old": old, "new": new}:
            _replace(folder / REPOSITORY / path, old, new)
        case {"replace_text": path, "old": old, "new": new}:
            _replace(folder / path, old, new)
        case {"remove": pattern}:
            found = list(folder.glob(pattern))
            assert found, pattern
            for path in found:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        case {"engine": path, "value": value}:
            _set(folder / "engine/config.json", path, value, json.loads, json.dumps)
        case {"settings": path, "value": value}:
            file = folder / REPOSITORY / "tensorrt_llm/1/model.yaml"
            _set(file, path, value, yaml.safe_load, yaml.safe_dump)
        case {}:
            assert not mutation, mutation


def _mutate_config(folder: Path, mutation: Mapping[str, Any]) -> None:
    kind, model = next(iter(mutation.items()))
    config = _read(folder, model)
    match mutation:
        case {"parameter": _, "name": name, "value": value}:
            config.parameters[name].string_value = value
        case {"field": _, "path": path, "value": value}:
            *above, last = path.split(".")
            message: Any = config
            for part in above:
                message = message[int(part)] if part.isdigit() else getattr(message, part)
            setattr(message, last, value)
        case {"tensor": _, "name": name, "data_type": data_type}:
            tensor = next(t for t in (*config.output, *config.input) if t.name == name)
            tensor.data_type = model_config_pb2.DataType.Value(data_type)
        case {"drop_tensor": _, "name": name}:
            del config.input[[tensor.name for tensor in config.input].index(name)]
        case _:
            raise AssertionError(kind)
    (folder / REPOSITORY / model / "config.pbtxt").write_text(text_format.MessageToString(config))


def _replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text, old
    path.write_text(text.replace(old, new))


def _read(folder: Path, model: str) -> model_config_pb2.ModelConfig:
    text = (folder / REPOSITORY / model / "config.pbtxt").read_text()
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def _set(file: Path, path: str, value: Any, read: Any, write: Any) -> None:
    whole = read(file.read_text())
    *above, last = path.split(".")
    inner = whole
    for part in above:
        inner = inner[part]
    inner[last] = value
    file.write_text(write(whole))
