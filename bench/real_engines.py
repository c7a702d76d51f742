"""Real engines: the whole path by doubles of TensorRT-LLM's programs, for campaigns that kill builders."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

from emulator.train.hf_checkpoint import write_hf_checkpoint
from engine_builder.engines_config import EnginesConfig
from engine_builder.errors import BuilderError
from engine_builder.package import Signer, Trust, verify
from engine_builder.steps import Step
from enginehouse.building import HouseParts, Parts, Recipe
from enginehouse.engine_places import EnginePlaces
from enginehouse.local.state_dir import StateDir, default_state_dir
from model_registry.engine_specs import Calibration, EngineSpec, Workload

STEPS = 2
"""Of each engine: quantize and compile."""
KEY = "engine-signing.pem"


def checkpoint(folder: Path) -> None:
    """The demo's small model, in Hugging Face's layout."""
    write_hf_checkpoint(folder / "checkpoint", "house-chat", "float16", 1)


def spec(folder: Path, number: int) -> EngineSpec:
    """One of many, each another engine in both of its steps."""
    return EngineSpec(
        name="real", checkpoint=str(folder / "checkpoint"), gpu_class="h100-sxm", precision="fp8",
        tensor_parallel=2, max_batch_size=number, max_seq_len=1024, calibration=Calibration(samples=number),
        workload=Workload(input_tokens=256, output_tokens=128),
    )  # fmt: skip


class _NotedParts(HouseParts):
    """Steps note that they were run."""

    def __init__(self, folder: Path) -> None:
        super().__init__(EnginePlaces(EnginesConfig(), StateDir(default_state_dir())))
        self._runs = folder / "runs.log"

    def steps(self, recipe: Recipe) -> tuple[Step, ...]:
        def noted(step: Step) -> Step:
            note = f"echo {step.name}-{recipe.digest} >> {shlex.quote(str(self._runs))}"
            return replace(step, argv=("sh", "-c", f'{note}; exec "$@"', "sh", *step.argv))

        return tuple(noted(step) for step in super().steps(recipe))


def parts(folder: Path) -> Parts:
    """What engines are made with, of one campaign."""
    return _NotedParts(folder)


def whole(folder: Path, state: Path) -> bool:
    """Whether a published folder is signed by this machine, and all of it there."""
    try:
        return verify(folder, Trust.of(Signer.load(state / KEY)))[1] == []
    except BuilderError:
        return False
