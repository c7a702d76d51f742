"""Where the programs of a build are: TensorRT-LLM's own, or the doubles that stand in for them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from engine_builder.contract.versions import version_number
from engine_builder.doubles.programs import PROGRAMS
from engine_builder.doubles.telling import VERSION
from engine_builder.errors import BuilderError, SpecError
from model_registry.engine_specs import EngineSpec, Runtime

BUILD, CONVERT, QUANTIZE, CHECK, FETCH = (
    "trtllm-build",
    "convert_checkpoint.py",
    "quantize.py",
    "check",
    "fetch",
)
EXAMPLES = (Path("/app/tensorrt_llm/examples"), Path("/app/examples"))
"""Where NVIDIA's images have TensorRT-LLM's examples."""
_QUANTIZE_SCRIPT = Path("quantization", QUANTIZE)
DOUBLES_RECIPE = "1"
"""Raised when the doubles make something else of the same input."""
_FAMILIES: Mapping[str, str] = {"Qwen2ForCausalLM": "qwen", "Qwen3ForCausalLM": "qwen"}
"""Folder of `examples/models/core` that converts an architecture, where it is not Llama's."""


@dataclass(frozen=True, slots=True)
class Tools:
    """How each program is called."""

    runtime: Runtime
    programs: Mapping[str, tuple[str, ...]]
    """The first words of its command line, by name."""
    examples: Path | None = None
    """TensorRT-LLM's folder of examples; None with doubles."""
    version: str | None = None
    """Of the TensorRT-LLM that is installed, where there is one; doubles speak for any."""

    @classmethod
    def find(cls, runtime: Runtime, examples: Path | None = None) -> Tools:
        """The programs of this machine. `examples`: TensorRT-LLM's folder of that name, of the same version
        as its `trtllm-build`; without it, NVIDIA's images are known. Raises BuilderError for a folder that
        is none. Programs that are missing are named by `command`: not every lane needs each.
        """
        found = {
            CHECK: (sys.executable, "-m", "engine_builder.steps.check"),
            FETCH: (sys.executable, "-m", "engine_builder.steps.fetch"),
        }
        if runtime == "emulated":
            doubles = (sys.executable, "-m", "engine_builder.doubles")
            return cls(runtime, {**found, **{name: (*doubles, name) for name in PROGRAMS}})
        if examples is not None and not (examples / _QUANTIZE_SCRIPT).is_file():
            raise BuilderError(
                f"{examples} has no {_QUANTIZE_SCRIPT}", "name TensorRT-LLM's folder of examples"
            )
        folders = (examples,) if examples is not None else EXAMPLES
        folder = next((one for one in folders if (one / _QUANTIZE_SCRIPT).is_file()), None)
        programs: dict[str, tuple[str, ...]] = dict(found)
        build = shutil.which(BUILD)
        if build is not None:
            programs[BUILD] = (build,)
        if folder is not None:
            programs[QUANTIZE] = (_python(), str(folder / _QUANTIZE_SCRIPT))
        return cls(runtime, programs, folder, None if build is None else _installed())

    def check(self, spec: EngineSpec) -> None:
        """Raises SpecError for a spec of another version than is installed: engines are not portable."""
        if self.version is not None and version_number(self.version) != version_number(spec.version):
            raise SpecError(
                f"{spec.name} wants TensorRT-LLM {spec.version}, and {self.version} is installed",
                "set `version` to it, or build in the image of the other",
            )

    def command(self, program: str, architecture: str = "") -> tuple[str, ...]:
        """The first words of a program's command line for models of an architecture. Raises BuilderError."""
        if program in self.programs:
            return self.programs[program]
        if program == BUILD:
            raise BuilderError(
                f"{BUILD} is not on PATH",
                "build where TensorRT-LLM up to 1.2.1 is installed, such as in NVIDIA's image, "
                "or with the runtime `emulated` for CPU engines",
            )
        if self.examples is None:
            raise BuilderError(
                f"{program} is not there: TensorRT-LLM's examples are in none of "
                + ", ".join(str(folder) for folder in EXAMPLES),
                "name their folder, of the same version as trtllm-build; or take the runtime `emulated`",
            )
        family = Path("models", "core", _FAMILIES.get(architecture, "llama"))
        script = self.examples / (family if program == CONVERT else "") / program
        if not script.is_file():
            raise BuilderError(
                f"{script} is not there, which converts {architecture}",
                "name the folder of examples that came with the installed TensorRT-LLM",
            )
        return (_python(), str(script))

    def gpus(self, spec: EngineSpec) -> int:
        """That a step takes which computes on all of a replica's: none with doubles."""
        return 0 if self.runtime == "emulated" else spec.gpus

    def inputs(self, spec: EngineSpec) -> dict[str, str]:
        """What goes into a step's key about the program itself."""
        made = f"doubles {DOUBLES_RECIPE}" if self.runtime == "emulated" else f"tensorrt-llm {self.version}"
        return {"tool": made, "version": spec.version, "runtime": self.runtime}

    def environment(self, spec: EngineSpec) -> dict[str, str]:
        """Variables that programs need: doubles are told the version that they speak for."""
        return {VERSION: spec.version} if self.runtime == "emulated" else {}


def _installed() -> str | None:
    """Asked of the package's metadata: importing the package is slow."""
    asked = "from importlib.metadata import version; print(version('tensorrt_llm'))"
    found = subprocess.run([_python(), "-c", asked], capture_output=True, text=True, timeout=60, check=False)
    return found.stdout.strip() or None


def _python() -> str:
    """The Python of TensorRT-LLM, which is that of PATH, and need not be ours."""
    return shutil.which("python3") or sys.executable
