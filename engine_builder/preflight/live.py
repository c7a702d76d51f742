"""Checks against a live server: does it run these models, on the right runtime, with room, and answer?"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from engine_builder.errors import CheckpointError
from engine_builder.package.manifest import Feature, Manifest
from engine_builder.plan.memory import kv_bytes_per_token, shards_embedding, weights_bytes
from engine_builder.preflight.asking import Asker
from engine_builder.preflight.lint import OnCheck
from engine_builder.preflight.problems import Problem, checked
from engine_builder.preflight.smoke import smoke
from engine_builder.preflight.subject import Subject
from engine_builder.shape import Shape
from inference.control import TritonControl
from inference.errors import InferenceError, SchemaError, TokenizerError
from inference.introspection import introspect
from inference.schema import Schema
from inference.tokenizer import ModelTokenizer
from model_registry.engines import Check
from model_registry.entities import ServerRef

_USUAL: tuple[Feature, ...] = ("stream", "stop", "seed", "cancel")
"""Features of a repository that has no manifest."""
_TARGETS: Mapping[str, str] = {"trt-engine": "ensemble", "llmapi": "tensorrt_llm"}
"""What is asked for by lane; the bare model behind an ensemble is found."""


async def live(
    subject: Subject, server: ServerRef, target: str | None = None, on_check: OnCheck = lambda _: None
) -> list[Check]:
    """Every check of a server, each told as it is done; those that need an earlier one end with it."""
    found = []
    async for check in _checks(subject, server, target):
        on_check(check)
        found.append(check)
    return found


async def _checks(subject: Subject, server: ServerRef, target: str | None) -> AsyncIterator[Check]:
    asked = target or _target(subject)
    async with TritonControl(server) as control:
        is_triton = await control.live()
        if is_triton and subject.models:
            yield await _models(subject, control)
            yield await _configs(subject, control)
        try:
            schema = await introspect(server, asked)
        except (SchemaError, InferenceError) as error:
            remedy = f"see that {server.http} serves {asked!r}: its log says why a model did not load"
            yield Check(name="schema", passed=False, detail=str(error), remedy=remedy)
            return
        yield Check(name="schema", passed=True, detail=f"{schema.target} speaks {schema.lane}")
        yield checked("server_runtime", _runtime(subject, schema, server))
        if is_triton:
            yield await _memory(subject, control)
        asker = Asker(server, schema, _tokenizer(subject))
        try:
            for feature in _USUAL if subject.manifest is None else subject.manifest.features:
                yield await smoke(feature, asker, control, _config_folder(subject))
        finally:
            await asker.close()


def _target(subject: Subject) -> str:
    manifest = subject.manifest
    if manifest is not None and manifest.lane not in _TARGETS:
        return manifest.spec.model or manifest.spec.name
    if manifest is not None:
        return _TARGETS[manifest.lane]
    for role in ("ensemble", "tensorrt_llm_bls", "tensorrt_llm", "llmapi", "vllm"):
        for model in subject.models.values():
            if model.role == role:
                return model.name
    return next(iter(subject.models))


async def _models(subject: Subject, control: TritonControl) -> Check:
    try:
        states = {state.name: state for state in await control.index()}
    except InferenceError as error:
        return Check(name="server_models", passed=False, detail=str(error), remedy="see that Triton answers")
    problems = []
    for name in subject.models:
        state = states.get(name)
        if state is None or state.state != "READY":
            told = "not in its repository"
            if state is not None:
                told = f"{state.state or 'not loaded'} {state.reason}".strip()
            remedy = "start Triton with this repository, and load all its models"
            problems.append(Problem(f"{name} is {told}", remedy))
    return checked("server_models", problems, f"{len(subject.models)} models are ready")


async def _configs(subject: Subject, control: TritonControl) -> Check:
    """A server that was started with another repository, or before this one was written."""
    problems = []
    for model in subject.models.values():
        try:
            served = await control.config(model.name)
        except InferenceError:
            continue  # told by `server_models`
        parameters = {key: value["string_value"] for key, value in served.get("parameters", {}).items()}
        own = {key: value.string_value for key, value in model.config.parameters.items()}
        names = own.keys() | parameters.keys()
        differ = sorted(name for name in names if not _fits(own.get(name), parameters.get(name)))
        if differ:
            problems.append(
                Problem(
                    f"{model.name} runs with another {', '.join(differ)}",
                    "restart Triton with this repository, or reload the model",
                )
            )
    return checked("server_configs", problems, "as in the repository")


def _fits(own: str | None, served: str | None) -> bool:
    """Whether a server's value is ours, with anything in the place of what only its place knows."""
    if own is None or served is None:
        return own == served
    pattern = re.sub(r"\\\$\\\{\w+\\\}", ".+", re.escape(own))
    return re.fullmatch(pattern, served) is not None


def _runtime(subject: Subject, schema: Schema, server: ServerRef) -> list[Problem]:
    if subject.manifest is None or subject.emulated == schema.emulated:
        return []
    if subject.emulated:
        return [
            Problem(
                f"an emulated engine, and {server.http} is no emulator",
                "build the engine with TensorRT-LLM itself for this server",
            )
        ]
    return [
        Problem(
            f"an engine of {subject.manifest.runtime}, and {server.http} is an emulator",
            "name the server that runs the engine",
        )
    ]


async def _memory(subject: Subject, control: TritonControl) -> Check:
    """What one replica takes at least, against the GPUs that the server's metrics tell of."""
    name, manifest = "memory", subject.manifest
    try:
        totals = [one.total_mib * 2**20 for one in await control.gpu_memory()]
    except InferenceError as error:
        return Check(name=name, passed=True, detail=f"not compared: its metrics cannot be read ({error})")
    if not totals or manifest is None:
        return Check(name=name, passed=True, detail="not compared: the server tells of no GPU memory")
    needed = needed_bytes(manifest, _shape(subject))
    detail = f"{needed / 2**30:.1f} GiB of {min(totals) / 2**30:.1f} GiB a GPU, with one longest request"
    if needed > min(totals) or len(totals) < manifest.gpus:
        remedy = f"serve it on {manifest.gpus} x {manifest.gpu_class}, or build a smaller engine"
        return Check(name=name, passed=False, detail=f"{detail}; {len(totals)} GPUs", remedy=remedy)
    return Check(name=name, passed=True, detail=detail)


def needed_bytes(manifest: Manifest, shape: Shape | None) -> float:
    """Of one GPU: weights, and the KV cache of one request of the greatest length (contract sheet §8)."""
    spec = manifest.spec
    tensor, pipeline = spec.tensor_parallel or 1, spec.pipeline_parallel or 1
    own = (e.size for path, e in manifest.files.items() if path.startswith(("engine/", "checkpoint/")))
    weights = sum(own) / (tensor * pipeline)
    if shape is None:
        return weights
    if not manifest.own_weights:
        sharded = shards_embedding(spec)
        weights = weights_bytes(shape, spec.precision or "bf16", tensor, pipeline, sharded_embedding=sharded)
    token = kv_bytes_per_token(shape, spec.kv_cache or "auto", tensor, pipeline)
    return weights + token * (spec.max_seq_len or 0)


def _shape(subject: Subject) -> Shape | None:
    folder = _config_folder(subject)
    if folder is None:
        return None
    try:
        return Shape.of(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, CheckpointError):
        return None


def _config_folder(subject: Subject) -> Path | None:
    return None if subject.package is None else subject.package / "tokenizer"


def _tokenizer(subject: Subject) -> ModelTokenizer | None:
    return next((t for t in subject.tokenizers.values() if not isinstance(t, TokenizerError)), None)
