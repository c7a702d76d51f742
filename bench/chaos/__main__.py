"""`python -m bench.chaos`: many streams, clients that leave, parts that are killed; then one `RESULT {json}`.

Runs against an `enginehouse up` of its own: real Triton, real Redis, two workers. 0: everything went as
promised (`docs/architecture.md`); 1: not; 2: it could not be measured.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from bench.campaign import concluded, said_since
from bench.campaign import parser as parser_of
from bench.chaos.blows import BLOWS, blow
from bench.chaos.leaving import STATS_PERIOD_MS, leaving
from bench.chaos.many import many
from bench.up import Up, up
from enginehouse.local.stack import DEMO_STACK

PARTS = ("many", "leaving", *BLOWS)
PART_TIMEOUT_S = 300.0


def campaign(names: list[str], rounds: int) -> dict[str, Any]:
    """Every part named, so many times; the processes it starts have ended when it returns."""
    began_s = time.monotonic()
    say = said_since(began_s)
    told: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory(prefix="enginehouse-chaos-") as name:
        folder = Path(name)
        (folder / "stack.yaml").write_text(yaml.safe_dump(watched_stack()))
        say("starting the stack")
        with up(folder, "--workers", "2", "--stack", str(folder / "stack.yaml")) as stack:
            say("ready")
            for _ in range(rounds):
                for part in names:
                    told[part].append(asyncio.run(_part(part, stack)))
                    say(f"{part}: {json.dumps(told[part][-1])}")
    parts = {name: runs[0] if rounds == 1 else runs for name, runs in told.items()}
    ok = all(run["ok"] for runs in told.values() for run in runs)
    return {"took_s": round(time.monotonic() - began_s, 1), "parts": parts, "ok": ok}


async def _part(name: str, stack: Up) -> dict[str, Any]:
    async with asyncio.timeout(PART_TIMEOUT_S):
        match name:
            case "many":
                return await many(stack)
            case "leaving":
                return await leaving(stack)
        return await blow(name, stack)


def watched_stack() -> dict[str, Any]:
    """The demo's, with counters of its engines that are as new as slots are."""
    described = DEMO_STACK.model_dump(mode="json", exclude_defaults=True)
    for server in described["servers"]:
        for engine in server["engines"]:
            engine["stats_check_period_ms"] = STATS_PERIOD_MS
    return described


def main() -> int:
    """Run what the arguments name."""
    parser = parser_of(__doc__, 'python -m bench.chaos --only leaving --only "triton, text" --rounds 3')
    parser.add_argument("--only", action="append", choices=PARTS, help="this part only; may repeat")
    parser.add_argument("--rounds", type=int, default=1, help="how often each; default: 1")
    options = parser.parse_args()
    return concluded(lambda: campaign(options.only or list(PARTS), options.rounds))


if __name__ == "__main__":
    sys.exit(main())
