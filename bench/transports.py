"""Which transport of a real Triton costs the gateway less: gRPC or HTTP `generate_stream`.

`python -m bench.transports` runs one Triton with the cheapest bare `tensorrt_llm` model and reads the same
streams through the gateway over both, in turns: unpaced (Triton is the limit) and paced as an engine would.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import bodies, campaign, load, tokenizer
from bench.build import BenchError
from bench.gateway_under_test import House, triton_objects
from bench.load import Bodies, Target
from bench.processes import Cores, tree
from bench.scenarios import Figures
from bench.triton import real_triton
from model_registry.entities import ServerRef

TARGET = "tensorrt_llm"
TRANSPORTS = ("http", "grpc")
PACES = {"unpaced": 0, "20 ms": 20_000}
STREAMS = 32
TOKENS = 100
Results = dict[str, dict[str, dict[str, float]]]
"""Pace -> transport -> figure -> median."""


def measure(quick: bool = False, repetitions: int = 3) -> Results:
    """Medians for every pace and transport. Raises BenchError when an answer is not whole."""
    cores, results = Cores.of_this_machine(), {}
    for pace, interval_us in PACES.items():
        with tempfile.TemporaryDirectory(prefix="enginehouse-bench-") as name:
            folder = Path(name)
            with real_triton(cores, folder, TARGET, interval_us) as triton:
                server = ServerRef(http=triton.http_url, grpc=triton.grpc_url)
                pids = tuple(tree(triton.pid)) if triton.pid else ()
                results[pace] = _pace(cores, folder, server, pids, quick, repetitions)
    return results


def _pace(
    cores: Cores, folder: Path, server: ServerRef, triton: tuple[int, ...], quick: bool, repetitions: int
) -> dict[str, dict[str, float]]:
    words = tokenizer.write(folder / "tokenizer")
    objects = [
        item
        for transport in TRANSPORTS
        for item in triton_objects(server, words, name=transport, target=TARGET, transport=transport)
    ]
    house = House(cores, folder, objects)
    seen: dict[str, list[Figures]] = {transport: [] for transport in TRANSPORTS}
    try:
        for _ in range(repetitions):
            for transport in TRANSPORTS:
                seen[transport].append(_once(cores, folder, house, transport, triton, quick))
    finally:
        house.close()
    return {transport: _medians(figures) for transport, figures in seen.items()}


def _once(
    cores: Cores, folder: Path, house: House, transport: str, triton: tuple[int, ...], quick: bool
) -> Figures:
    questions = Bodies(
        folder / "bodies" / transport, lambda stream, tokens: bodies.chat(transport, stream, tokens)
    )
    with house.gateway(transport) as gateway:
        target = Target(
            gateway.port,
            "/v1/chat/completions",
            questions,
            "id",
            headers=gateway.headers,
            pids=gateway.pids,
            beside={"triton": triton},
        )
        times = ("-w", 1, "-d", 2) if quick else ("-w", 2, "-d", 6)
        result = load.run(cores.load, target, "streams", TOKENS, "-c", STREAMS, *times)
    if failed := {kind: count for kind, count in result["failed"].items() if count}:
        raise BenchError(f"streams over {transport} failed: {failed}")
    return _figures(result)


def _figures(result: dict[str, Any]) -> Figures:
    tokens, cpu_s = result["tokens"], result["cpu_s"]
    return {
        "tokens_per_s": result["tokens_per_s"],
        "gateway_cpu_s_per_million": cpu_s["subject"] / tokens * 1e6,
        "triton_cpu_s_per_million": cpu_s["triton"] / tokens * 1e6,
        "ttft_p99_ms": result["ttft_ms"]["p99"],
        "transit_p50_ms": result["transit_ms"]["p50"],
        "transit_p99_ms": result["transit_ms"]["p99"],
    }


def _medians(repetitions: list[Figures]) -> dict[str, float]:
    return {
        name: statistics.median(value for one in repetitions if (value := one[name]) is not None)
        for name in repetitions[0]
    }


def show(results: Results, console: Console) -> None:
    """One table, a column per pace and transport."""
    table = Table(title=f"Real Triton, {STREAMS} streams, through the gateway", title_justify="left")
    table.add_column("")
    columns = [(pace, transport) for pace, by_transport in results.items() for transport in by_transport]
    for pace, transport in columns:
        table.add_column(f"{pace}, {transport}", justify="right")
    for figure in next(iter(next(iter(results.values())).values())):
        table.add_row(figure, *(f"{results[pace][transport][figure]:,.2f}" for pace, transport in columns))
    console.print(table)


def main() -> int:
    parser = campaign.parser(__doc__, "python -m bench.transports --quick")
    parser.add_argument("--quick", action="store_true", help="short: for a look, not for figures")
    parser.add_argument("--reps", type=int, default=None, help="repetitions, in turns (default 3; quick 1)")
    options = parser.parse_args()

    def measured() -> dict[str, Any]:
        results = measure(options.quick, options.reps or (1 if options.quick else 3))
        show(results, Console())
        return {"ok": True, **results}

    return campaign.concluded(measured)


if __name__ == "__main__":
    sys.exit(main())
