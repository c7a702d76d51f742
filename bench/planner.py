"""What a plan's forecasts are worth: `python -m bench.planner [--quick]`.

The real kernel tables (the extra `planner`) are asked, and held against three things: the tool's own
simulation of in-flight batching at the same load, the roofline, and the answers that tests go by. Ends with
one line `RESULT {json}`. 0: all within their bars; 1: not; 2: the extra is not installed, so nothing was
measured.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from bench import campaign
from bench.build import BenchError
from engine_builder.checkpoint import CONFIG_FILE, Checkpoint
from engine_builder.errors import PlanError
from engine_builder.plan import KernelTables, Roofline, plan
from engine_builder.plan.advice import ratio
from model_registry.engine_specs import EngineSpec, Precision, Workload

CONFIGS = Path("examples/engines/configs")
RECORDED = Path("tests/data/aiconfigurator/llama-3-8b-h100.json")
MIXTRAL = {
    "architectures": ["MixtralForCausalLM"],
    "model_type": "mixtral",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
    "max_position_embeddings": 32768,
    "vocab_size": 32000,
    "torch_dtype": "bfloat16",
}
SIMULATED_BAR, MIXTURE_BAR = 1.15, 1.2
"""By what factor our formula may be off the tool's own simulation, in tokens per second. By more of
mixtures of experts: which experts a small batch reads makes their steps no straight line (decision 25)."""
ROOFLINE_BAR = 1.5
"""By what factor a roofline's goodput may be off, for the GPUs and models below."""
TABLE_WIDTH = 130


class Case(NamedTuple):
    """One question."""

    name: str
    checkpoint: str
    gpu_class: str
    precision: Precision
    ranks: int
    workload: Workload


CHAT, LONG = Workload(input_tokens=2048, output_tokens=512), Workload(input_tokens=8192, output_tokens=2048)
CASES = (
    Case("8B bf16, H100", "llama-3-8b", "h100-sxm", "bf16", 1, CHAT),
    Case("8B fp8, H100", "llama-3-8b", "h100-sxm", "fp8", 1, CHAT),
    Case("8B fp8, H100 x 4", "llama-3-8b", "h100-sxm", "fp8", 4, CHAT),
    Case("8B bf16, A100", "llama-3-8b", "a100-sxm-80gb", "bf16", 1, CHAT),
    Case("8B fp8, L40S", "llama-3-8b", "l40s", "fp8", 1, CHAT),
    Case("70B fp8, H100 x 4", "llama-3-70b", "h100-sxm", "fp8", 4, LONG),
    Case("70B fp8, H200 x 2", "llama-3-70b", "h200-sxm", "fp8", 2, LONG),
    Case("70B nvfp4, B200", "llama-3-70b", "b200-sxm", "nvfp4", 1, LONG),
    Case("8x7B fp8, H100 x 2", "mixtral", "h100-sxm", "fp8", 2, CHAT),
)


def main() -> int:
    """Run what the arguments name."""
    parser = campaign.parser(__doc__, "python -m bench.planner --quick")
    parser.add_argument("--quick", action="store_true", help="the first two cases")
    options = parser.parse_args()
    return campaign.concluded(lambda: measured(quick=options.quick))


def measured(*, quick: bool) -> dict[str, Any]:
    """Each case beside its bars, printed too. Raises BenchError where the tables are not installed."""
    began_s = time.monotonic()
    try:
        tables = KernelTables.load()
    except PlanError as error:
        raise BenchError(f"{error}; {error.remedy}") from error
    with tempfile.TemporaryDirectory(prefix="enginehouse-planner-") as folder:
        (Path(folder) / CONFIG_FILE).write_text(json.dumps(MIXTRAL), encoding="utf-8")
        rows = [
            _measure(case, tables, folder if case.checkpoint == "mixtral" else str(CONFIGS / case.checkpoint))
            for case in CASES[: 2 if quick else None]
        ]
    drifted = list(_drifted(tables))
    Console(width=TABLE_WIDTH).print(_table(rows))
    return {
        "ok": all(row["ok"] for row in rows) and not drifted,
        "aiconfigurator": tables.version,
        "cases": rows,
        "drifted": drifted,
        "took_s": round(time.monotonic() - began_s, 1),
    }


def _measure(case: Case, tables: KernelTables, folder: str) -> dict[str, Any]:
    """Both models of performance, both families of lanes, and the tool's own simulation beside ours."""
    checkpoint = Checkpoint.open(folder)
    spec = EngineSpec(
        name="case",
        checkpoint=folder,
        gpu_class=case.gpu_class,
        lane="llmapi",
        precision=case.precision,
        tensor_parallel=case.ranks,
        pipeline_parallel=1,
        workload=case.workload,
    )
    found = plan(spec, checkpoint, tables, most_gpus=case.ranks, lanes=("llmapi", "vllm"))
    option = found.own.chosen
    assert option is not None
    if found.model is not tables or option.at_targets is None:
        return {"name": case.name, "ok": False, "wrong": "no kernels, or the targets are missed"}
    rough = plan(spec, checkpoint, Roofline(), most_gpus=case.ranks, lanes=("llmapi",)).own.chosen
    assert rough is not None
    simulated = tables.simulate(option.spec, checkpoint, found.ask, option.at_targets.batch)
    ours = option.at_targets.requests_per_s
    by_roofline = rough.tokens_per_s_per_gpu / option.tokens_per_s_per_gpu
    beside_vllm = ratio(found, "llmapi", "vllm")
    bar = SIMULATED_BAR if checkpoint.shape.experts == 1 else MIXTURE_BAR
    return {
        "name": case.name,
        "tokens_per_s_per_gpu": round(option.tokens_per_s_per_gpu),
        "batch": option.at_targets.batch,
        "itl_ms": round(option.at_targets.itl_s * 1e3, 2),
        "simulated_itl_ms": round(float(simulated["tpot"]), 2),
        "by_simulation": round(ours / float(simulated["seq/s"]), 3),
        "roofline_by_tables": round(by_roofline, 3),
        "by_vllm": None if beside_vllm is None else round(beside_vllm, 3),
        "ok": _within(ours / float(simulated["seq/s"]), bar) and _within(by_roofline, ROOFLINE_BAR),
    }


def _drifted(tables: KernelTables) -> Iterator[str]:
    """Recorded answers that the tables do not give any more."""
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))
    checkpoint = Checkpoint.open(recorded["model"])
    for one in recorded["answers"]:
        if "raw" in one:
            phase = "context" if one["asked"]["mode"] == "static_ctx" else "generation"
            now_s = tables.answer(one["asked"], checkpoint, phase)
            then_s = one["raw"][f"{phase}_latency"] / 1e3
            if now_s is None or not _within(now_s / then_s, 1.01):
                yield f"{one['asked']}: {then_s} then, {now_s} now"


def _within(value: float, factor: float) -> bool:
    return 1 / factor <= value <= factor


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="Forecasts from kernel tables", title_justify="left")
    heads = ("case", "tokens/s/GPU", "batch", "ITL ms", "simulated", "req/s by it", "roofline", "by vLLM", "")
    for head in heads:
        table.add_column(head)
    names = ("name", "tokens_per_s_per_gpu", "batch", "itl_ms", "simulated_itl_ms", "by_simulation")
    for row in rows:
        cells = [str(row.get(name, "-")) for name in (*names, "roofline_by_tables", "by_vllm")]
        table.add_row(*cells, "met" if row["ok"] else f"MISSED {row.get('wrong', '')}")
    return table


if __name__ == "__main__":
    sys.exit(main())
