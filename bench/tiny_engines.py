"""Tiny engines: a checkpoint, steps of a tenth of a second, a package and a publish, to try builders."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex

from engine_builder.checkpoint import Checkpoint
from engine_builder.errors import BuilderError
from engine_builder.steps.step import Step
from enginehouse.building import Parts, Recipe
from model_registry.engine_specs import EngineSpec, Runtime
from model_registry.engines import Engine

NAMES = ("convert", "quantize", "compile")
STEPS = len(NAMES)
FILES = 4
"""Written by each step, one after the other."""


def checkpoint(folder: Path) -> None:
    """A checkpoint as small as they come."""
    folder = folder / "checkpoint"
    folder.mkdir(parents=True, exist_ok=True)
    sizes = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size")
    config = dict.fromkeys(sizes, 8) | {"architectures": ["LlamaForCausalLM"]}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"\1" * 4096)


def spec(folder: Path, number: int = 1) -> EngineSpec:
    """One of many, each another engine; nothing in it is open."""
    return EngineSpec(
        name="tiny", checkpoint=str(folder / "checkpoint"), gpu_class="cpu", precision="bf16",
        kv_cache="auto", tensor_parallel=1, pipeline_parallel=1, max_batch_size=number, max_seq_len=4096,
        max_num_tokens=64,
        fp8_context_fmha=False, scheduler_policy="guaranteed_no_evict",
    )  # fmt: skip


class TinyParts:
    """Stands in for what plans, converts and packages; `enginehouse.building` puts it together as ever."""

    def __init__(self, folder: Path, pause_s: float = 0.025) -> None:
        self._folder = folder
        self._pause_s = pause_s
        """Between two files of a step."""

    def runtime(self) -> Runtime:
        return "emulated"

    def resolve(self, spec: EngineSpec, checkpoint: Checkpoint) -> EngineSpec:  # noqa: ARG002 - as the real one
        return spec

    def steps(self, recipe: Recipe) -> tuple[Step, ...]:
        """Each notes that it was run, leaves four files, the last one after some time, and ends once there is
        no file `hold-NAME`."""
        if recipe.runtime != "emulated":
            raise BuilderError("trtllm-build is not on PATH", "install TensorRT-LLM 1.2.1")
        runs = self._folder / "runs.log"
        found: list[Step] = []
        for name in NAMES:
            before = found[-1].name if found else None
            note = f"echo {name}-{recipe.digest} >> {runs}"
            files = " ".join(map(str, range(FILES)))
            read = f"cat {{{before}}}/0" if before else "echo begun"
            write = f"for n in {files}; do {read} > {{output}}/$n; echo file $n; sleep {self._pause_s}; done"
            hold = f"while [ -e {self._folder}/hold-{name} ]; do sleep 0.05; done"
            found.append(
                Step(
                    name,
                    ("sh", "-c", f"{note}; {write}; {hold}"),
                    needs=(before,) if before else (),
                    inputs={"checkpoint": recipe.checkpoint_digest, "spec": recipe.digest},
                    expects=(str(FILES - 1),),
                )
            )
        return tuple(found)

    def package(self, recipe: Recipe, outputs: Mapping[str, Path], into: Path) -> Path:
        folder = into / recipe.engine
        shutil.copytree(outputs["compile"], folder)
        sums = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
        (folder / "manifest.json").write_text(json.dumps(sums))
        return folder

    def publish(self, recipe: Recipe, folder: Path, store: str) -> Engine:
        target = Path(store) / recipe.engine
        if not target.exists():
            draft = target.with_name(f".{token_hex(4)}")
            shutil.copytree(folder, draft)
            try:
                draft.rename(target)
            except OSError:
                shutil.rmtree(draft)  # another one has published it meanwhile
        manifest = (target / "manifest.json").read_bytes()
        return Engine(
            name=recipe.engine, spec=recipe.spec.name, digest=recipe.digest, lane=recipe.spec.lane,
            runtime=recipe.runtime, version=recipe.spec.version, gpu_class="cpu", precision="bf16",
            url=str(target), manifest_sha256=hashlib.sha256(manifest).hexdigest(),
            built_at=datetime.now(UTC),
        )  # fmt: skip


def parts(folder: Path) -> Parts:
    """What engines are made with, of one campaign."""
    return TinyParts(folder)


def whole(folder: Path, state: Path | None = None) -> bool:  # noqa: ARG001 - as of real engines
    """Whether a published folder has all that its manifest names."""
    try:
        sums: dict[str, str] = json.loads((folder / "manifest.json").read_text())
        found = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in sums}
    except (OSError, ValueError):
        return False
    return sums == found and len(sums) == FILES
