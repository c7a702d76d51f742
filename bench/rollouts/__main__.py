"""`python -m bench.rollouts`: every case while clients ask, and one line `RESULT {json}` at its end.

0: every candidate was treated as it should be, before 5 % of the requests had seen a regression, and no
client's request failed; 1: not; 2: it could not be measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from bench.build import BenchError
from bench.campaign import concluded, said_since
from bench.campaign import parser as parser_of
from bench.rollouts.cases import CROSSINGS, REGRESSIONS, Case, clean
from bench.rollouts.clients import Clients
from bench.rollouts.faults import FAULTS, Fault
from bench.rollouts.faults import faults as under_fault
from bench.rollouts.fleet import Fleet, fleet
from model_registry.rollouts import CanaryStep, Limits, Rollout, ShadowPlan

MOST_EXPOSED = 0.05
CASE_TIMEOUT_S = 180.0
CLEAN_WITHIN_S = 25 * 60.0
QUICK_CLEAN, ALL_CLEAN = 2, 20
STEPS = tuple(
    CanaryStep(share=share, min_samples=samples, min_s=1)
    for share, samples in ((0.01, 2), (0.05, 5), (0.25, 10), (0.5, 20))
)


async def campaign(cases: Mapping[str, Case | Fault], within_s: float | None = None) -> dict[str, Any]:
    """Every case, one after the other; the processes it starts have ended when it returns.

    Raises BenchError when `within_s` are over before.
    """
    try:
        async with asyncio.timeout(within_s):
            return await _campaign(cases)
    except TimeoutError as error:
        raise BenchError(f"{len(cases)} cases were not done within {within_s:g} s") from error


async def _campaign(cases: Mapping[str, Case | Fault]) -> dict[str, Any]:
    began_s = time.monotonic()
    say = said_since(began_s)
    told: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="enginehouse-rollouts-") as folder:
        say("starting Redis, Triton, an OpenAI-HTTP server, controller and two gateways")
        beside = any(isinstance(case, Fault) for case in cases.values())
        async with fleet(Path(folder), beside=beside) as running:
            for name, case in cases.items():
                if isinstance(case, Fault):
                    told[name] = await under_fault(running, name, case)
                else:
                    told[name] = await _case(running, name, case)
                say(f"{name}: {json.dumps(told[name])}")
    return {
        "took_s": round(time.monotonic() - began_s, 1),
        "regressions": sum(isinstance(case, Case) and not case.promoted for case in cases.values()),
        "clean": sum(isinstance(case, Case) and case.promoted for case in cases.values()),
        "faults": sum(isinstance(case, Fault) for case in cases.values()),
        "failed_requests": sum(one["failed"] for one in told.values()),
        "requests": sum(one["requests"] for one in told.values()),
        "cases": told,
        "ok": all(one["ok"] for one in told.values()),
    }


async def _case(running: Fleet, name: str, case: Case) -> dict[str, Any]:
    model = await running.deploy(name, case)
    rollout = Rollout(
        name=f"r-{name}",
        model=model,
        stable=f"stable-{name}",
        candidate=f"candidate-{name}",
        shadow=ShadowPlan(concurrency=5, min_s=2),
        steps=STEPS,
        limits=Limits.model_validate(dict(case.limits)),
    )
    clients = Clients(running.session, running.gateways, model, running.key)
    began_s = time.monotonic()
    async with clients.asking():
        await running.store.apply([rollout])
        status = await running.until_over(rollout, CASE_TIMEOUT_S)
    took_s = time.monotonic() - began_s
    await running.remove(model)
    exposed = clients.by_candidate / max(1, clients.answered)
    failed = sum(clients.failed.values())
    as_it_should = status.phase == ("promoted" if case.promoted else "rolled_back")
    ok = as_it_should and failed == 0 and (case.promoted or exposed < MOST_EXPOSED)
    copies = next((one.samples for one in status.figures if one.name == "shadow.errors"), 0)
    return {
        "ok": ok,
        "phase": status.phase,
        "reason": status.reason,
        "took_s": round(took_s, 1),
        "requests": clients.answered + failed,
        "failed": failed,
        "failures": dict(clients.failed),
        "by_candidate": clients.by_candidate,
        "exposed": round(exposed, 4),
        "copies": copies,
        "median_s": {side: round(median(took), 3) for side, took in clients.took_s.items() if took},
    }


def _cases(options: argparse.Namespace) -> dict[str, Case | Fault]:
    if options.faults:
        known: dict[str, Case | Fault] = dict(FAULTS)
    elif options.clean:
        known = dict(clean(number) for number in range(1, options.clean + 1))
    else:
        count = QUICK_CLEAN if options.quick else ALL_CLEAN - len(CROSSINGS)
        known = {**REGRESSIONS, **CROSSINGS, **dict(clean(number) for number in range(1, count + 1))}
    only = options.only
    unknown = set(only or ()) - known.keys()
    if unknown:
        raise BenchError(f"no such case: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return {name: case for name, case in known.items() if only is None or name in only}


def main() -> int:
    """Run what the arguments name."""
    parser = parser_of(__doc__, "python -m bench.rollouts --quick")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--quick", action="store_true", help="each regression, and few clean ones")
    which.add_argument("--clean", type=int, metavar="N", help="N clean ones alone, within 25 minutes")
    which.add_argument("--faults", action="store_true", help="clean ones with a fault in the middle of each")
    parser.add_argument("--only", action="append", metavar="CASE", help="this case only; may repeat")
    options = parser.parse_args()
    return concluded(campaign(_cases(options), CLEAN_WITHIN_S if options.clean else None))


if __name__ == "__main__":
    sys.exit(main())
