"""`python -m bench.scale`: replicas live, case by case, and one line `RESULT {json}` at its end.

0: all is as it should be; 1: not; 2: it could not be measured.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.campaign import concluded, said_since
from bench.campaign import parser as parser_of
from bench.scale.following import following
from bench.scale.leaders import leaders
from bench.scale.residency import QUICK_S, RUN_S, residency

CASES = ("following", "leaders", "residency")
GONE, QUICK_GONE = 125, 10
"""Leaders; each fifth is frozen, the others are killed."""
Say = Callable[[str], None]


async def campaign(cases: list[str], *, quick: bool, seed: int) -> dict[str, Any]:
    """Every case, one after the other; the processes it starts have ended when it returns."""
    began_s = time.monotonic()
    told: dict[str, Any] = {}
    for name in cases:
        with tempfile.TemporaryDirectory(prefix="enginehouse-scale-") as folder:
            told[name] = await _case(name, Path(folder), quick, seed, said_since(began_s, f"{name}: "))
    return {
        "took_s": round(time.monotonic() - began_s, 1),
        "seed": seed,
        "cases": told,
        "ok": all(one["ok"] for one in told.values()),
    }


async def _case(name: str, folder: Path, quick: bool, seed: int, say: Say) -> dict[str, Any]:
    say("begins")
    match name:
        case "following":
            told = await following(seed, say, folder)
        case "leaders":
            told = await leaders(QUICK_GONE if quick else GONE, seed, say, folder)
        case _:
            told = await residency(seed, QUICK_S if quick else RUN_S, say, folder)
    say(json.dumps(told))
    return told


def main() -> int:
    """Run what the arguments name."""
    parser = parser_of(__doc__, "python -m bench.scale --quick --only following")
    parser.add_argument(
        "--quick", action="store_true", help="fewer leaders, and a shorter run on little memory"
    )
    parser.add_argument("--only", action="append", choices=CASES, help="this case only; may repeat")
    parser.add_argument("--seed", type=int, default=1, help="of requests and kills; default: 1")
    options = parser.parse_args()
    return concluded(campaign(options.only or list(CASES), quick=options.quick, seed=options.seed))


if __name__ == "__main__":
    sys.exit(main())
