"""How the servers of a packaged engine are started, as scripts with placeholders for the place. Pure.

Source: `scripts/launch_triton_server.py` of TensorRT-LLM's Triton backend (contract sheet §3.1). Command
lines of OpenAI-HTTP servers come from the build's `launch` step.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

import yaml

from engine_builder.package.server_settings import SERVE_FILE, ServerSettings
from engine_builder.repository.engine_models import ROOT
from model_registry.engine_specs import EngineSpec, Runtime

REPOSITORY = f"{ROOT}/serve/repository"
_HEAD = "#!/bin/sh\n# {about}\nset -eu\n"
_PORTS = ("--http-port=8000", "--grpc-port=8001", "--metrics-port=8002")


def launch_files(
    spec: EngineSpec, runtime: Runtime, models: Sequence[str], settings: ServerSettings
) -> dict[str, str]:
    """Files by name. `models`: names in the Triton repository, what non-leading ranks load first."""
    if spec.lane == "trt-engine":
        return _trt_engine(spec, models)
    if spec.lane == "llmapi":
        return {"triton.sh": _script("One Triton; the Python model starts its own ranks.", _triton())}
    command = list(settings.command)
    if runtime == "emulated":
        name = spec.model or spec.name
        command = ["python3", "-m", "emulator.openai_server", "--name", name, "--model-dir", settings.weights]
    files = {"serve.sh": _script("An OpenAI-HTTP server.", command)}
    if models:
        files["triton.sh"] = _script("Triton's vLLM backend, instead of serve.sh.", _triton())
    else:
        files[SERVE_FILE] = yaml.safe_dump(dict(settings.document), sort_keys=False)
    return files


def _trt_engine(spec: EngineSpec, models: Sequence[str]) -> dict[str, str]:
    if spec.gpus == 1:
        return {"triton.sh": _script("One Triton on one GPU.", _triton())}
    return {
        "leader.sh": _script(
            f"Leader mode: one Triton per rank, {spec.gpus} ranks (TP {spec.tensor_parallel} x PP "
            f"{spec.pipeline_parallel}); rank 0 serves. One MPI job per engine.\n"
            f"# The same as: launch_triton_server.py --world_size={spec.gpus} --model_repo={REPOSITORY}",
            _mpirun(spec.gpus, models[0]),
        ),
        "orchestrator.sh": _script(
            "Orchestrator mode: one Triton, which spawns the ranks' workers. For several engines in one "
            "server; one node only, not under Slurm.\n"
            f"# The same as: launch_triton_server.py --multi-model --model_repo={REPOSITORY}",
            _orchestrator(spec.gpus),
            {"TRTLLM_ORCHESTRATOR": "1", "TRTLLM_ORCHESTRATOR_SPAWN_PROCESSES": "1"},
        ),
    }


def _triton(*more: str) -> list[str]:
    return ["tritonserver", f"--model-repository={REPOSITORY}", *_PORTS, *more]


def _rank(rank: int, engine: str) -> list[str]:
    memory = f"--backend-config=python,shm-region-prefix-name=prefix{rank}_"
    common = ["--disable-auto-complete-config", memory]
    others = ["--model-control-mode=explicit", f"--load-model={engine}"] if rank else []
    return ["-n", "1", *_triton(*common, *others)]


def _mpirun(world: int, engine: str) -> list[str]:
    command = ["mpirun", "--allow-run-as-root"]
    for rank in range(world):
        command += [*([":"] if rank else []), *_rank(rank, engine)]
    return command


def _orchestrator(world: int) -> list[str]:
    pools = [f"--cuda-memory-pool-byte-size={gpu}:0" for gpu in range(world)]
    more = ["--pinned-memory-pool-byte-size=0", "--enable-peer-access=false", *pools]
    first = ["-n", "1", *_triton("--disable-auto-complete-config", *more)]
    return ["mpirun", "--allow-run-as-root", *first]


def _script(about: str, command: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    lines = [_HEAD.format(about=about)]
    lines += [f"export {name}={shlex.quote(value)}\n" for name, value in (environment or {}).items()]
    words = [word if "${" in word else shlex.quote(word) for word in command]
    return "".join(lines) + "exec " + " \\\n    ".join(words) + "\n"
