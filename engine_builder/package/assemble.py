"""Packaging: a decided spec and what its steps left, to one signed folder.

Written beside its final name and renamed: whoever sees the folder sees all of it.
"""

from __future__ import annotations

import datetime
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

from engine_builder.checkpoint import Checkpoint
from engine_builder.contract.images import image_with
from engine_builder.errors import PackageError
from engine_builder.identity import DECIDED, engine_name
from engine_builder.package.launch import launch_files
from engine_builder.package.manifest import (
    MANIFEST_FILE,
    SIGNATURE_FILE,
    Feature,
    Manifest,
    digest_of,
    files_below,
    folder_name,
)
from engine_builder.package.server_settings import read_settings
from engine_builder.package.signing import Signer
from engine_builder.package.tokenizer_files import copy_tokenizer, write_guides_file
from engine_builder.repository import write_repository
from engine_builder.repository.engine_models import CHECKPOINT, ROOT, Finish, as_it_is, engine_models
from model_registry.cards import GoodputCard
from model_registry.engine_specs import EngineSpec, Runtime
from model_registry.knobs import knobs_of
from model_registry.triton_queue import TritonQueue
from router.gpus import architecture_of

ENGINE_DIR = "engine"
CHECKPOINT_DIR = "checkpoint"
TOKENIZER_DIR = "tokenizer"
REPOSITORY_DIR = "repository"
LAUNCH_DIR = "launch"

_FEATURES: Mapping[str, tuple[Feature, ...]] = {
    "trt-engine": ("stream", "stop", "seed", "logprobs", "cancel"),
    "llmapi": ("stream", "stop", "seed", "cancel"),
    "trtllm-serve": ("stream", "stop", "seed", "cancel"),
    "vllm": ("stream", "stop", "seed", "cancel"),
}


def package(
    spec: EngineSpec,
    checkpoint: Checkpoint,
    outputs: Mapping[str, Path],
    digest: str,
    runtime: Runtime,
    into: Path,
    signer: Signer,
    card: GoodputCard | None = None,
    *,
    checkpoint_digest: str | None = None,
    steps: Mapping[str, str] | None = None,
    queue: TritonQueue | None = None,
    finish: Finish = as_it_is,
    built_at: datetime.datetime | None = None,
) -> Path:
    """Write the package below `into` and return its folder; one that is there is replaced.

    `outputs`: folders by step name (`compile`, `quantize`, `launch`). `digest`: the engine's. `steps`: keys
    of the steps. `queue`: the profile's; default, as built in. `finish` makes models loadable (Python files
    of an installation, or an emulator's). Raises PackageError, and CheckpointError where the checkpoint
    cannot be read.
    """
    left = [name for name in DECIDED if getattr(spec, name) is None]
    if left:
        raise PackageError(f"{spec.name} leaves {', '.join(left)} open", "have `plan` resolve it first")
    name = engine_name(spec, digest)
    into.mkdir(parents=True, exist_ok=True)
    draft = into / f".packaging-{secrets.token_hex(6)}"
    try:
        own_weights = _place_weights(spec, outputs, draft)
        copy_tokenizer(checkpoint, draft / TOKENIZER_DIR)
        guides = spec.lane == "trt-engine" and write_guides_file(draft / TOKENIZER_DIR)
        weights = f"{ROOT}/{CHECKPOINT_DIR}" if own_weights else CHECKPOINT
        settings = read_settings(spec.lane, outputs, weights)
        models = engine_models(
            spec,
            queue or knobs_of(spec.profile).triton,
            guides=guides,
            weights=weights,
            settings=settings.document,
        )
        finished = [finish(kind, model, spec) for kind, model in models.items()]
        if finished:
            write_repository(draft / REPOSITORY_DIR, finished)
        names = [model.name for model in finished]
        (draft / LAUNCH_DIR).mkdir()
        for file, text in launch_files(spec, runtime, names, settings).items():
            (draft / LAUNCH_DIR / file).write_text(text, encoding="utf-8")
        image = None if spec.lane == "vllm" else image_with(spec.version)
        manifest = Manifest(
            name=name,
            engine_digest=digest,
            lane=spec.lane,
            runtime=runtime,
            version=spec.version,
            image=None if image is None else image.reference,
            gpu_class=spec.gpu_class,
            architecture=architecture_of(spec.gpu_class) if spec.lane == "trt-engine" else None,
            gpus=spec.gpus,
            spec=spec,
            features=_features(spec, guides),
            checkpoint_digest=checkpoint_digest or checkpoint.digest(),
            own_weights=own_weights,
            tokenizer_digest=checkpoint.tokenizer_digest(),
            template_digest=checkpoint.template_digest(),
            vocab_size=checkpoint.shape.vocab,
            steps=dict(steps or {}),
            card=card,
            built_at=built_at or datetime.datetime.now(datetime.UTC),
            files={path: digest_of(draft / path) for path in files_below(draft)},
        )
        data = manifest.encoded()
        (draft / MANIFEST_FILE).write_bytes(data)
        (draft / SIGNATURE_FILE).write_bytes(signer.sign(data))
        folder = into / folder_name(name)
        if folder.exists():
            shutil.rmtree(folder)
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


def _place_weights(spec: EngineSpec, outputs: Mapping[str, Path], draft: Path) -> bool:
    """The engine, or the quantized checkpoint; False where the source checkpoint is loaded as it is."""
    draft.mkdir()
    if spec.lane == "trt-engine":
        if "compile" not in outputs:
            raise PackageError("no output of the step 'compile' was given", "build the engine first")
        _place(outputs["compile"], draft / ENGINE_DIR)
        return True
    if "quantize" in outputs:
        _place(outputs["quantize"], draft / CHECKPOINT_DIR)
        return True
    return False


def _place(source: Path, target: Path) -> None:
    """A folder's files without their bytes where the file system can: the store gets a copy of its own."""
    found = files_below(source)
    if not found:
        raise PackageError(f"{source} holds no files", "run its step anew")
    for path in found:
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link((source / path).resolve(), target / path)
        except OSError:
            shutil.copyfile(source / path, target / path)


def _features(spec: EngineSpec, guides: bool) -> tuple[Feature, ...]:
    more: list[Feature] = []
    if guides:
        more.append("guided")
    if spec.lora is not None and spec.lane == "trt-engine":
        more.append("lora")
    return (*_FEATURES[spec.lane], *more)
