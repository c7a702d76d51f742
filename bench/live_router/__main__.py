"""`python -m bench.live_router`: the campaign, part by part, and one line `RESULT {json}` at its end.

0: every bar is met and every request was answered whole; 1: not; 2: it could not be measured.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from bench.campaign import concluded, said_since
from bench.campaign import parser as parser_of
from bench.live_router.fleet import Fleet, fleet
from bench.live_router.neighbour import neighbour
from bench.live_router.ranking import ranking
from bench.live_router.report import CpuWatch, Part, Say
from bench.live_router.slots import slots
from bench.live_router.slow_endpoint import slow_endpoint
from bench.live_router.switching import switching

PARTS: dict[str, Callable[..., Awaitable[Part]]] = {
    "slow-endpoint": slow_endpoint,  # first: endpoints are judged by what they did under other loads, too
    "slots": slots,
    "ranking": ranking,
    "neighbour": neighbour,
    "switching": switching,
}
PART_TIMEOUT_S = 300.0
BUSY_SHARE = 0.85


async def campaign(names: Sequence[str], *, quick: bool) -> dict[str, Any]:
    """Every part named; the processes it starts have ended when it returns."""
    began_s = time.monotonic()
    say = said_since(began_s)
    parts: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="enginehouse-live-") as folder:
        say("starting Redis, Triton with four paced engines, controller and three gateways")
        async with fleet(Path(folder)) as running:
            say("all ready")
            for name in names:
                parts[name] = await _part(name, running, say, quick=quick)
    return {
        "quick": quick,
        "took_s": round(time.monotonic() - began_s, 1),
        "parts": parts,
        "ok": all(part["ok"] for part in parts.values()),
    }


async def _part(name: str, running: Fleet, say: Say, *, quick: bool) -> dict[str, Any]:
    say(f"{name} …")
    watch, began_s = CpuWatch(running), time.monotonic()
    async with asyncio.timeout(PART_TIMEOUT_S):
        part = await PARTS[name](running, say, quick=quick)
    took_s = round(time.monotonic() - began_s, 1)
    told = {
        "ok": part.ok,
        **part.figures,
        "wrong": dict(part.wrong),
        "took_s": took_s,
        "cores": watch.cores(),
    }
    say(f"{name}: {'met' if part.ok else 'MISSED'} {json.dumps(told)}")
    if told["cores"]["machine"] > BUSY_SHARE * len(os.sched_getaffinity(0)):
        say("the machine was busy with other things: engines and gateways may have been late for that")
    return told


def main() -> int:
    """Run what the arguments name."""
    parser = parser_of(__doc__, "python -m bench.live_router --quick --only slots")
    parser.add_argument("--quick", action="store_true", help="a look, not a figure: at most 90 s")
    parser.add_argument("--only", choices=[*PARTS], action="append", help="this part only; may repeat")
    options = parser.parse_args()
    return concluded(campaign(options.only or [*PARTS], quick=options.quick))


if __name__ == "__main__":
    sys.exit(main())
