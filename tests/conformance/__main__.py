"""`python -m tests.conformance`: starts a stack with every lane, asks every feature, writes the page."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import httpx2 as httpx
from rich.console import Console

from inference.tokenizer import ModelTokenizer
from tests.conformance import report
from tests.conformance.ask import Ask
from tests.conformance.lanes import LANES, every_lane
from tests.conformance.probes import GENERATING
from tests.conformance.report import Outcome
from tests.conformance.run import run
from tests.stack.stack import ROOT

PAGE = ROOT / "docs" / "conformance.md"


def main() -> int:
    """0 when no cell failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("--only", default="", help="comma list of words; only probes whose name holds one")
    parser.add_argument("--out", type=Path, default=PAGE, help="the page (default: docs/conformance.md)")
    options = parser.parse_args()
    words = [word for word in options.only.split(",") if word]
    probes = [p for p in GENERATING if not words or any(word in p.name for word in words)]
    console = Console(stderr=True)
    began_s = time.monotonic()

    def show(lane: str, name: str, outcome: Outcome) -> None:
        if outcome.verdict == "FAILED":
            console.print(f"[red]FAILED[/] {lane} · {name}: {outcome.note}", highlight=False)

    with (
        tempfile.TemporaryDirectory(prefix="enginehouse-conformance-") as folder,
        every_lane(Path(folder)) as stack,
    ):
        client = httpx.Client(base_url=stack.origin, headers=stack.headers, timeout=60)
        lanes = {
            lane.name: Ask(
                client, lane.model, ModelTokenizer.load(ROOT / "emulator" / "models" / lane.weights)
            )
            for lane in LANES
        }
        matrix = run(probes, lanes, show)
    counts = report.counts(matrix)
    if not words:
        options.out.write_text(report.page(list(lanes), probes, matrix))
        console.print(f"written to {options.out}", highlight=False)
    ok = counts["failed"] == 0
    print(
        "RESULT "
        + json.dumps({"ok": ok, **counts, "lanes": len(lanes), "s": round(time.monotonic() - began_s)})
    )
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
