"""`python -m tests.conformance`: starts a stack with every lane, asks every feature, writes the page."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx2 as httpx
from rich.console import Console

from bench import campaign
from inference.tokenizer import ModelTokenizer
from tests.conformance import report
from tests.conformance.ask import Ask
from tests.conformance.lanes import EMBEDDERS, LANES, MODELS, Lane, every_lane
from tests.conformance.probes import EMBEDDING, GENERATING, Probe
from tests.conformance.report import Outcome, Section
from tests.conformance.run import run
from tests.stack.stack import ROOT

PAGE = ROOT / "docs" / "conformance.md"


def main() -> int:
    """0 when no cell failed."""
    parser = campaign.parser(__doc__, "python -m tests.conformance --only stream")
    parser.add_argument("--only", default="", help="comma list of words; only probes whose name holds one")
    parser.add_argument("--out", type=Path, default=PAGE, help="the page (default: docs/conformance.md)")
    options = parser.parse_args()
    words = [word for word in options.only.split(",") if word]
    return campaign.concluded(lambda: asked_all(words, options.out))


def asked_all(words: Sequence[str], out: Path) -> dict[str, Any]:
    """What came of the probes whose names hold one of the words; of all, written to the page, too."""
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

        def section(lanes: Sequence[Lane], probes: Sequence[Probe]) -> Section:
            chosen = [p for p in probes if not words or any(word in p.name for word in words)]
            asked = {
                lane.name: Ask(
                    client, lane.model, ModelTokenizer.load(MODELS / lane.weights), lane.adapter, lane.name
                )
                for lane in lanes
            }
            return Section(list(asked), chosen, run(chosen, asked, show))

        sections = [section(LANES, GENERATING), section(EMBEDDERS, EMBEDDING)]
    counts = report.counts(sections)
    if not words:
        out.write_text(report.page(sections))
        console.print(f"written to {out}", highlight=False)
    ok = counts["failed"] == 0
    took_s = round(time.monotonic() - began_s)
    return {"ok": ok, **counts, "lanes": len(LANES) + len(EMBEDDERS), "s": took_s}


if __name__ == "__main__":
    sys.exit(main())
