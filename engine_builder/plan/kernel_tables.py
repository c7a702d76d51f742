"""Kernel tables: expected performance from kernels that NVIDIA has measured, through `aiconfigurator`.

An optional extra: `pip install 'enginehouse[planner]'`, about 850 MB. Its tables for TensorRT-LLM are of
the PyTorch backend (each launch configuration that it writes says `backend: pytorch`), so they say of a
compiled engine only what the same kernels would do. It is to be replaced by another tool: nothing else here
knows its names.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import logging
import shutil
import tempfile
import warnings
import weakref
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from engine_builder.checkpoint import CONFIG_FILE, Checkpoint
from engine_builder.errors import PlanError
from model_registry.cards import CardSource
from model_registry.engine_specs import BuildLane, EngineSpec, Precision
from router.goodput import Ask, figures, fit
from router.roofline import OVERHEAD_S, Lines

PACKAGE = "aiconfigurator"
SYSTEMS: Mapping[str, str] = MappingProxyType(
    {
        "a100-pcie-80gb": "a100_pcie",
        "a100-sxm-80gb": "a100_sxm",
        "l40s": "l40s",
        "h100-sxm": "h100_sxm",
        "h200-sxm": "h200_sxm",
        "b200-sxm": "b200_sxm",
        "gb200": "gb200",
        "b300-sxm": "b300_sxm",
        "gb300": "gb300",
        "rtx-pro-6000": "rtx_pro_6000_server",
    }
)
"""Its names of our GPU classes; of others it has no tables."""
BACKENDS: Mapping[BuildLane, str] = MappingProxyType(
    {"trt-engine": "trtllm", "llmapi": "trtllm", "trtllm-serve": "trtllm", "vllm": "vllm"}
)
GEMM: Mapping[Precision, str] = MappingProxyType(
    {
        "bf16": "bfloat16",
        "fp16": "bfloat16",
        "fp8": "fp8",
        "nvfp4": "nvfp4",
        "int8-sq": "sq",
        "int8-wo": "int8_wo",
        "int4-awq": "int4_wo",
        "int4-wo": "int4_wo",
    }
)
KV = MappingProxyType({"auto": "bfloat16", "fp8": "fp8", "int8": "int8"})
BATCHES = (1, 8, 32, 128)
"""At which steps are asked for; a line is laid through them."""
MIXTURE_BATCHES = (8, 32, 128, 256)
"""Of a mixture of experts, where few requests read few experts and no line goes through: the line is of the
batches from which on all experts are read, and says too much of fewer."""

Estimate = Callable[..., Any]
"""`aiconfigurator.cli.api.cli_estimate`: keywords in, an object with `raw` out."""


def installed() -> bool:
    """Whether the extra is there."""
    return importlib.util.find_spec(PACKAGE) is not None


class KernelTables:
    """Asks the tables for a prompt's prefill and for steps of several batches."""

    source: CardSource = "planned"
    tells_lanes_apart = True

    def __init__(self, estimate: Estimate, latest: Callable[[str, str], str | None], version: str) -> None:
        """`latest`: the version of a backend's tables for a system, None where there are none."""
        self._estimate = estimate
        self._latest = cache(latest)
        self.version = version
        """Of the tool."""
        self._folders: dict[str, Path] = {}
        self._known: dict[tuple[Any, ...], float | None] = {}

    @classmethod
    def load(cls) -> KernelTables:
        """The installed package's; takes seconds. Raises PlanError where it is not there, or not whole."""
        if not installed():
            raise PlanError(
                "measured kernel tables are not installed",
                "pip install 'enginehouse[planner]' (850 MB), or go by the roofline",
            )
        for name in (PACKAGE, f"{PACKAGE}_core"):
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                api = importlib.import_module(f"{PACKAGE}.cli.api")
                database = importlib.import_module(f"{PACKAGE}.sdk.perf_database")
        except ImportError as error:
            message = f"{PACKAGE} is not whole: {error}"
            raise PlanError(message, "install 'enginehouse[planner]' anew") from error

        def latest(system: str, backend: str) -> str | None:
            found = database.get_latest_database_version(system=system, backend=backend)
            return None if found is None else str(found)

        return cls(api.cli_estimate, latest, importlib.metadata.version(PACKAGE))

    def about(self, spec: EngineSpec) -> str:
        """Tool, backend and version; and what of a compiled engine is not in them."""
        system, backend = SYSTEMS.get(spec.gpu_class), BACKENDS[spec.lane]
        tables = self._latest(system, backend) if system is not None else None
        name = "vLLM" if backend == "vllm" else "TensorRT-LLM's PyTorch backend"
        text = f"Measured kernels of {name} {tables}, by {PACKAGE} {self.version}."
        return text if spec.lane != "trt-engine" else f"{text} Compiled engines were not measured."

    def lines(self, spec: EngineSpec, checkpoint: Checkpoint, ask: Ask) -> Lines | None:
        """None where the tables hold nothing of this GPU, precision or model."""
        common = self._question(spec, checkpoint)
        if common is None:
            return None
        prefill = common | {"mode": "static_ctx", "osl": 2, "isl": ask.prompt_tokens, "batch_size": 1}
        prefill_s = self.answer(prefill, checkpoint, "context")
        if prefill_s is None:
            return None
        middle = ask.prompt_tokens + ask.output_tokens // 2
        seen = []
        for batch in MIXTURE_BATCHES if checkpoint.shape.experts > 1 else BATCHES:
            step = common | {"mode": "static_gen", "osl": 2, "isl": middle, "batch_size": batch}
            step_s = self.answer(step, checkpoint, "generation")
            if step_s is None:
                return None
            seen.append((float(batch), step_s))
        base, slope = fit(seen)
        # Stages of a pipeline work on prompts side by side; the tables tell one prompt's way through all.
        rate = (spec.pipeline_parallel or 1) * ask.prompt_tokens / prefill_s
        return Lines(figures(rate), figures(OVERHEAD_S + base + slope), figures(base + slope), figures(slope))

    def simulate(self, spec: EngineSpec, checkpoint: Checkpoint, ask: Ask, batch: int) -> Mapping[str, Any]:
        """The tool's own run of in-flight batching, in its own names and units, to compare ours with.

        Raises what it raises.
        """
        common = self._question(spec, checkpoint) or {}
        load = {"mode": "agg", "isl": ask.prompt_tokens, "osl": ask.output_tokens, "batch_size": batch}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = self._estimate(**common, **load, model_path=str(self._folder(checkpoint)))
        return dict(found.raw)

    def _question(self, spec: EngineSpec, checkpoint: Checkpoint) -> dict[str, Any] | None:
        """What all questions about an engine begin with; None: there are no tables for its GPU and lane."""
        system, backend = SYSTEMS.get(spec.gpu_class), BACKENDS[spec.lane]
        version = None if system is None else self._latest(system, backend)
        if version is None or spec.precision is None or spec.kv_cache is None:
            return None
        found: dict[str, Any] = {
            "system_name": system,
            "backend_name": backend,
            "backend_version": version,
            "tp_size": spec.tensor_parallel or 1,
            "pp_size": spec.pipeline_parallel or 1,
            "gemm_quant_mode": GEMM[spec.precision],
            "kvcache_quant_mode": KV[spec.kv_cache],
        }
        if checkpoint.shape.experts > 1:
            found |= {
                "moe_quant_mode": GEMM[spec.precision],
                "moe_tp_size": found["tp_size"],
                "moe_ep_size": 1,
            }
        return found

    def answer(self, question: Mapping[str, Any], checkpoint: Checkpoint, phase: str) -> float | None:
        """Seconds of a phase; None where the tables have no answer. Lanes ask the same more than once."""
        key = (checkpoint.url, *sorted(question.items()))
        if key not in self._known:
            self._known[key] = self._asked({**question, "model_path": str(self._folder(checkpoint))}, phase)
        return self._known[key]

    def _asked(self, question: Mapping[str, Any], phase: str) -> float | None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                raw = self._estimate(**question).raw
            milliseconds = float(raw[f"{phase}_latency"])
        except Exception as error:  # its own, KeyError, ValueError and more: they have no common type
            logging.getLogger(__name__).debug("no figures", extra={"question": question, "error": str(error)})
            return None
        return milliseconds / 1e3 if milliseconds > 0 else None

    def _folder(self, checkpoint: Checkpoint) -> Path:
        """With the config alone: the tool wants a folder on this machine, wherever the checkpoint is."""
        if checkpoint.url not in self._folders:
            folder = Path(tempfile.mkdtemp(prefix="enginehouse-plan-"))
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
            self._folders[checkpoint.url] = folder
            config = dict(checkpoint.config)
            config.setdefault("architectures", [checkpoint.shape.architecture])
            (folder / CONFIG_FILE).write_text(json.dumps(config), encoding="utf-8")
        return self._folders[checkpoint.url]
