"""What the `launch` step of a build wrote for a server, its placeholders put into the package's terms."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from engine_builder.errors import PackageError
from engine_builder.repository.engine_models import CHECKPOINT, ROOT, TOKENIZER

SERVE_FILE = "serve.yaml"
COMMAND_FILE = "command.json"
_DOCUMENTS: Mapping[str, str] = {"llmapi": "model.yaml", "trtllm-serve": SERVE_FILE, "vllm": "model.json"}
_TOKENIZER = "${tokenizer}"


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Of one engine; empty for one that is compiled."""

    weights: str = CHECKPOINT
    """The folder with the checkpoint that the server loads."""
    document: Mapping[str, Any] = field(default_factory=dict)
    """`model.yaml`, `serve.yaml` or `model.json`."""
    command: tuple[str, ...] = ()
    """Of an OpenAI-HTTP server."""


def read_settings(lane: str, outputs: Mapping[str, Path], weights: str) -> ServerSettings:
    """What the step left for a lane. Raises PackageError where it did not, or left something else."""
    if lane not in _DOCUMENTS:
        return ServerSettings(weights)
    if "launch" not in outputs:
        raise PackageError("no output of the step 'launch' was given", "build the engine first")
    document = _parsed(outputs["launch"] / _DOCUMENTS[lane])
    if not isinstance(document, dict):
        raise PackageError(f"{_DOCUMENTS[lane]} is not a map of settings", "run the step `launch` anew")
    command: tuple[str, ...] = ()
    if lane != "llmapi":
        words = _parsed(outputs["launch"] / COMMAND_FILE)
        if not isinstance(words, list) or not words:
            raise PackageError(f"{COMMAND_FILE} is not a list of words", "run the step `launch` anew")
        command = tuple(_placed(str(word), weights) for word in words)
    return ServerSettings(weights, document, command)


def _placed(word: str, weights: str) -> str:
    if word == SERVE_FILE:
        return f"{ROOT}/serve/launch/{SERVE_FILE}"
    return word.replace(_TOKENIZER, TOKENIZER).replace(CHECKPOINT, weights)


def _parsed(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
        return json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise PackageError(f"{path} cannot be read: {error}", "run the step `launch` anew") from error
