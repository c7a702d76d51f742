"""Python files of Triton's Python models, taken from an installation of TensorRT-LLM's model repository.

They belong to one release of TensorRT-LLM, so they are read where that release is: `all_models` of its
container (or of `triton_backend` in its source tree), with or without a level in between.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from engine_builder.errors import PackageError
from engine_builder.repository.configs import ModelSpec
from engine_builder.repository.engine_models import Finish, Kind
from engine_builder.repository.writer import VERSION
from model_registry.engine_specs import EngineSpec

_REMEDY = (
    "set engines.all_models to the folder all_models of the TensorRT-LLM release that will serve it "
    "(triton_backend/all_models of its source tree)"
)
_BESIDE: dict[Kind, tuple[str, ...]] = {
    "preprocessing": ("preprocessing", "inflight_batcher_llm/preprocessing"),
    "postprocessing": ("postprocessing", "inflight_batcher_llm/postprocessing"),
    "tensorrt_llm_bls": ("tensorrt_llm_bls", "inflight_batcher_llm/tensorrt_llm_bls"),
    "llmapi": ("llmapi/tensorrt_llm", "llmapi", "tensorrt_llm"),
}


def from_installation(all_models: Path | None) -> Finish:
    """Gives each Python model its files. Raises PackageError, when called, for a model that has none.

    `all_models` None: it is not known where they are.
    """

    def finish(kind: Kind, model: ModelSpec, built: EngineSpec) -> ModelSpec:  # noqa: ARG001
        if kind not in _BESIDE:
            return model
        if all_models is None:
            raise PackageError(f"the model {kind} wants Python files of TensorRT-LLM", _REMEDY)
        for beside in _BESIDE[kind]:
            folder = all_models / beside / VERSION
            if (folder / "model.py").is_file():
                texts = {
                    str(path.relative_to(folder)): path.read_text(encoding="utf-8")
                    for path in sorted(folder.rglob("*.py"))
                }
                return replace(model, files={**texts, **model.files})
        raise PackageError(
            f"{all_models} has no Python files of the model {kind}",
            _REMEDY,
        )

    return finish
