"""Subject: a model repository on disk as preflight looks at it, with what its models point at.

A packaged engine, a fetched one, or any folder that Triton could be given; only packages have a manifest.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from engine_builder.errors import PackageError
from engine_builder.package.assemble import REPOSITORY_DIR
from engine_builder.package.locate import Location
from engine_builder.package.manifest import MANIFEST_FILE, Manifest, read_manifest
from engine_builder.package.verify import SERVE_DIR
from engine_builder.repository.engine_models import CHECKPOINT, ROOT
from engine_builder.repository.writer import CONFIG_FILE
from inference.errors import TokenizerError
from inference.tokenizer import ModelTokenizer

Role = Literal[
    "tensorrt_llm", "preprocessing", "postprocessing", "ensemble", "tensorrt_llm_bls", "llmapi", "vllm"
]
EMULATOR = "emulator_"
"""Prefix of the parameters that only CPU engines have."""
_BY_INPUT: Mapping[str, Role] = {
    "QUERY": "preprocessing",
    "TOKENS_BATCH": "postprocessing",
    "request_output_len": "tensorrt_llm",
    "sampling_param_max_tokens": "llmapi",
    "max_tokens": "tensorrt_llm_bls",
    "sampling_parameters": "vllm",
}
"""An input that one kind of model has alone, of those without ensemble steps."""


@dataclass(frozen=True)
class Model:
    """One model's folder and configuration."""

    folder: Path
    text: str
    config: model_config_pb2.ModelConfig
    """Empty where it cannot be parsed."""
    parse_error: str | None = None

    @classmethod
    def read(cls, folder: Path) -> Model:
        """Reads `config.pbtxt` as Triton does."""
        config = model_config_pb2.ModelConfig()
        try:
            text = (folder / CONFIG_FILE).read_text(encoding="utf-8")
            text_format.Parse(text, config)
        except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
            text = (folder / CONFIG_FILE).read_text("utf-8", "replace") if _is_file(folder) else ""
            return cls(folder, text, model_config_pb2.ModelConfig(), str(error))
        return cls(folder, text, config)

    @property
    def name(self) -> str:
        """The folder's."""
        return self.folder.name

    @cached_property
    def role(self) -> Role | None:
        """What kind of model it is, by its tensors; by its name where those do not tell. None: another."""
        if self.config.ensemble_scheduling.step or self.config.platform == "ensemble":
            return "ensemble"
        inputs = {tensor.name for tensor in self.config.input}
        found = next((role for name, role in _BY_INPUT.items() if name in inputs), None)
        if found is None and self.config.backend in ("tensorrtllm", "vllm"):
            found = "tensorrt_llm" if self.config.backend == "tensorrtllm" else "vllm"
        if found is None and self.name in _BY_INPUT.values():
            found = next(role for role in _BY_INPUT.values() if role == self.name)
        return found

    def stated(self, name: str) -> str | None:
        """A parameter as it stands; None when the configuration has none of that name."""
        return self.config.parameters[name].string_value if name in self.config.parameters else None

    def parameter(self, name: str) -> str | None:
        """A parameter that is given: neither empty nor a `${placeholder}` that nobody fills."""
        value = self.stated(name)
        return None if not value or is_unfilled(value) else value

    @property
    def emulated(self) -> bool:
        """A CPU engine is underneath."""
        return any(name.startswith(EMULATOR) for name in self.config.parameters)


def is_unfilled(value: str) -> bool:
    """Whether a value is a placeholder; those that `fetch` fills for the place of serving are none."""
    return value.startswith("${") and not value.startswith((ROOT, CHECKPOINT))


def _is_file(folder: Path) -> bool:
    return (folder / CONFIG_FILE).is_file()


@dataclass(frozen=True)
class Subject:
    """What is looked at."""

    root: Path
    """The model repository; does not exist for lanes that have none."""
    models: Mapping[str, Model]
    package: Path | None = None
    manifest: Manifest | None = None
    location: Location | None = None
    """Where the server sees the package; None: it was not fetched to a place of serving yet."""
    gpu_class: str | None = None
    """Of the server, where it is known."""
    server_version: str | None = None
    """Of the TensorRT-LLM that the server runs, where it is known."""

    @classmethod
    def read(
        cls, folder: Path, *, gpu_class: str | None = None, server_version: str | None = None
    ) -> Subject:
        """A packaged engine, fetched or not, or a model repository. Raises PackageError."""
        if not folder.is_dir():
            raise PackageError(f"{folder} is no folder", "name an engine's folder or a model repository")
        manifest = read_manifest(folder) if (folder / MANIFEST_FILE).is_file() else None
        location = None if manifest is None else Location.read(folder)
        root = folder
        if manifest is not None:
            root = folder / REPOSITORY_DIR if location is None else folder / SERVE_DIR / REPOSITORY_DIR
        models = {}
        if root.is_dir():
            for path in sorted(root.iterdir()):
                if path.is_dir() and not path.name.startswith("."):
                    models[path.name] = Model.read(path)
        if not models and manifest is None:
            raise PackageError(f"{folder} holds no models", "name a folder with one folder for each model")
        return cls(
            root,
            models,
            folder if manifest is not None else None,
            manifest,
            location,
            gpu_class,
            server_version,
        )

    def of_role(self, role: Role) -> Iterator[Model]:
        """The models of one kind."""
        return (model for model in self.models.values() if model.role == role)

    @cached_property
    def bare(self) -> Model | None:
        """The `tensorrt_llm` model, if there is one."""
        return next(self.of_role("tensorrt_llm"), None)

    @property
    def emulated(self) -> bool:
        """A CPU engine: by its manifest, else by its models."""
        if self.manifest is not None:
            return self.manifest.runtime == "emulated"
        return any(model.emulated for model in self.models.values())

    @property
    def version(self) -> str | None:
        """Of TensorRT-LLM, as the manifest or else the engine has it; None: neither tells."""
        if self.manifest is not None:
            return self.manifest.version
        found = self.engine_config.get("version")
        return found if isinstance(found, str) else None

    def local(self, path: str) -> Path:
        """Where a path of the server's lies on this machine."""
        if self.package is not None:
            root = ROOT if self.location is None else self.location.root
            if path == root or path.startswith(f"{root}/"):
                return self.package / path[len(root) + 1 :]
        return Path(path)

    @cached_property
    def engine_dir(self) -> Path | None:
        """The engine's folder; None where no model names one."""
        stated = None if self.bare is None else self.bare.parameter("gpt_model_path")
        return self.local(stated) if stated else None

    @cached_property
    def engine_config(self) -> Mapping[str, Any]:
        """The engine's `config.json`; empty where it cannot be read as one."""
        if self.engine_dir is None:
            return {}
        try:
            found = json.loads((self.engine_dir / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def build(self) -> Mapping[str, Any]:
        """What the engine was built for; empty where its config does not tell."""
        return _object(self.engine_config.get("build_config"))

    @property
    def pretrained(self) -> Mapping[str, Any]:
        """The model in the engine; empty where its config does not tell."""
        return _object(self.engine_config.get("pretrained_config"))

    @property
    def plugins(self) -> Mapping[str, Any]:
        """Plugins of the build."""
        return _object(self.build.get("plugin_config"))

    @cached_property
    def tokenizer_dirs(self) -> Mapping[str, Path]:
        """The tokenizer's folder by the model that names it."""
        found = {}
        for model in self.models.values():
            stated = model.parameter("tokenizer_dir")
            if stated is not None:
                found[model.name] = self.local(stated)
        if not found and self.package is not None:
            found["the package"] = self.package / "tokenizer"
        return found

    @cached_property
    def tokenizers(self) -> Mapping[Path, ModelTokenizer | TokenizerError]:
        """The tokenizer by its folder, or why it cannot be read; reading a large one takes a second."""
        found: dict[Path, ModelTokenizer | TokenizerError] = {}
        for path in set(self.tokenizer_dirs.values()):
            try:
                found[path] = ModelTokenizer.load(path)
            except TokenizerError as error:
                found[path] = error
        return found


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
