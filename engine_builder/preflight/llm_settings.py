"""Looks at `1/model.yaml` of `llmapi` models: arguments of TensorRT-LLM's `LLM()`, and `triton_config`.

Source: contract sheet §1.6 and §4.5. `LLM()` refuses arguments it does not know, after the model server has
spent its start on loading.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from engine_builder.contract.documents import MODEL_YAML, TRITON_CONFIG
from engine_builder.preflight.parameters import instead
from engine_builder.preflight.problems import Look, Problem
from engine_builder.preflight.subject import Model, Subject, is_unfilled
from engine_builder.repository.writer import VERSION


def find(subject: Subject) -> Iterator[Problem]:
    """Settings that `LLM()` or the Triton model refuses, or that cannot stream."""
    for model in subject.of_role("llmapi"):
        if model.emulated and not (model.folder / VERSION / "model.yaml").is_file():
            continue
        path = model.folder / VERSION / "model.yaml"
        settings = _read(path)
        if not isinstance(settings, dict):
            yield Problem(f"{path}: {settings or 'not a map of settings'}", "write the LLM's arguments to it")
            continue
        yield from _arguments(model, settings)
        yield from _triton(model, settings.get("triton_config"))
        yield from _paths(subject, model, settings)


def _arguments(model: Model, settings: Mapping[str, Any]) -> Iterator[Problem]:
    for name in sorted(map(str, settings)):
        if MODEL_YAML.find(name) is None:
            yield Problem(f"{model.name}/model.yaml: LLM() has no argument {name}", instead(MODEL_YAML, name))
    backend = settings.get("backend", "pytorch")
    if backend not in ("pytorch", "_autodeploy"):
        yield Problem(
            f"{model.name}/model.yaml: backend {backend}, which llmapi models do not have",
            "set backend: pytorch",
        )
    cache = settings.get("kv_cache_config")
    share = cache.get("free_gpu_memory_fraction", 0.9) if isinstance(cache, dict) else 0.9
    if not isinstance(share, (int, float)) or not 0 < share <= 1:
        yield Problem(
            f"{model.name}/model.yaml: kv_cache_config.free_gpu_memory_fraction is {share!r}",
            "set it above 0 and at most 1",
        )


def _triton(model: Model, triton: Any) -> Iterator[Problem]:
    if not isinstance(triton, dict):
        yield Problem(f"{model.name}/model.yaml has no triton_config", "add triton_config: {decoupled: true}")
        return
    for name in sorted(map(str, triton)):
        if TRITON_CONFIG.find(name) is None:
            known = ", ".join(sorted(option.name for option in TRITON_CONFIG.options))
            yield Problem(f"{model.name}/model.yaml: triton_config has no {name}", f"use {known}")
    if triton.get("decoupled") is not True:
        yield Problem(
            f"{model.name}/model.yaml: triton_config.decoupled is not true, so the model cannot stream",
            "set triton_config.decoupled: true",
        )
    if triton.get("max_batch_size", 0) != model.config.max_batch_size:
        yield Problem(
            f"{model.name}: triton_config.max_batch_size {triton.get('max_batch_size', 0)}, and "
            f"{model.config.max_batch_size} in config.pbtxt",
            "give both the same value",
        )


def _paths(subject: Subject, model: Model, settings: Mapping[str, Any]) -> Iterator[Problem]:
    for name in ("model", "tokenizer"):
        value = settings.get(name)
        if value is None and name == "tokenizer":
            continue
        if not isinstance(value, str) or is_unfilled(value):
            yield Problem(
                f"{model.name}/model.yaml: {name} is {value or 'missing'}",
                f"set {name} to the checkpoint's folder",
            )
        elif value.startswith("/") and not subject.local(value).is_dir():
            yield Problem(
                f"{model.name}/model.yaml: {name}: {value} is no folder",
                "copy the checkpoint to the server (fetch with --checkpoint)",
            )


def _read(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        return error.strerror
    except yaml.YAMLError as error:
        return f"not YAML: {error}"


LOOKS = (Look("llm_settings", find),)
