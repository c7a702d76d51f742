"""Faults: what breaks in the middle of a clean rollout, and what must become of it.

The candidate is the stable engine once more, in a second Triton. No fault may fail a request that another
server could have answered, raise the candidate's share by more than the next step, or promote a candidate
that was not compared.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, NamedTuple

from bench.build import BenchError
from bench.rollouts.cases import Case
from bench.rollouts.clients import Clients
from bench.rollouts.fleet import Fleet
from bench.rollouts.watching import Watching
from model_registry.engines import Engine, PreflightRecord
from model_registry.errors import InUseError
from model_registry.rollouts import CanaryStep, Limit, Limits, RateLimit, Rollout, ShadowPlan

CASE = Case("twin", promoted=True, server="beside")
PHASE_TIMEOUT_S = 60.0
END_TIMEOUT_S = 90.0
AWAY_S = 10.0
SHARES = (0.05, 0.3, 0.6)
_STEPS = tuple(
    CanaryStep(share=share, min_samples=samples, min_s=seconds)
    for share, samples, seconds in zip(SHARES, (3, 10, 10), (1, 4, 2), strict=True)
)
_WIDE = Limit(harmless=3.0, harmful=9.0)
LIMITS = Limits(
    errors=RateLimit(harmless=0.01, harmful=0.3),
    answers=RateLimit(harmless=0.02, harmful=0.3),
    finish=RateLimit(harmless=0.02, harmful=0.3),
    length=_WIDE,
    pace=_WIDE,
    ttft=_WIDE,
)
"""Few requests tell: what is shown is what a fault does, and not how well regressions are told."""


class Run(NamedTuple):
    """One rollout under way."""

    fleet: Fleet
    rollout: Rollout
    watching: Watching
    clients: Clients


class Fault(NamedTuple):
    """What breaks, and when."""

    at: str
    """The phase; `canary`: the step at 30 %."""
    does: Callable[[Run], Awaitable[None]]
    """Returns when the fault is over."""
    ends: str
    """The phase that it must come to."""
    says: str
    """Part of what `enginehouse rollout` must have said."""
    may_fail: bool = False
    """Nothing else may answer: a candidate without a share is not proven."""


async def faults(fleet: Fleet, name: str, fault: Fault) -> dict[str, Any]:
    """One rollout with one fault."""
    model = await fleet.deploy(name, CASE, engines=_engines(name))
    rollout = Rollout(
        name=f"r-{name}",
        model=model,
        stable=f"stable-{name}",
        candidate=f"candidate-{name}",
        shadow=ShadowPlan(concurrency=8, min_samples=20, min_s=3),
        steps=_STEPS,
        limits=LIMITS,
        unready_s=5.0,
    )
    clients = Clients(fleet.session, fleet.gateways, model, fleet.key)
    watching = Watching(fleet.connections(), rollout.name)
    began_s = time.monotonic()
    async with clients.asking():
        await fleet.store.apply([rollout])
        await watching.until(lambda: _reached(watching, fault.at), fault.at, PHASE_TIMEOUT_S)
        before = len(watching.said)
        look_on = asyncio.create_task(watching.to_its_end(END_TIMEOUT_S))
        try:
            await fault.does(Run(fleet, rollout, watching, clients))
        finally:
            await look_on
        served = await _after(clients, watching.phase)
    failed = sum(clients.failed.values())
    told = {
        "phase": watching.phase,
        "took_s": round(time.monotonic() - began_s, 1),
        "shares": watching.shares,
        "requests": clients.answered + failed,
        "failed": 0 if fault.may_fail else failed,
        "unavoidable": failed if fault.may_fail else 0,
        "failures": dict(clients.failed),
        "moved": clients.moved,
        "by_candidate": clients.by_candidate,
        "said": watching.said[before:][-6:],
    }
    wrong = _wrong(fault, watching, clients, before) + served
    await fleet.remove(model)
    return {"ok": not wrong, "wrong": wrong, **told}


def _reached(watching: Watching, at: str) -> bool:
    if watching.status is None or watching.phase != at:
        return False
    return at != "canary" or watching.status.share == SHARES[1]


def _wrong(fault: Fault, watching: Watching, clients: Clients, before: int) -> list[str]:
    wrong = []
    if watching.phase != fault.ends:
        wrong.append(f"it ended {watching.phase}, not {fault.ends}")
    if clients.failed and not fault.may_fail:
        wrong.append(f"{sum(clients.failed.values())} requests failed")
    if not any(fault.says in line for line in watching.said[before:]):
        wrong.append(f"it never said {fault.says!r}")
    allowed = (0.0, *SHARES, 1.0)
    for was, share in pairwise(watching.shares):
        if share > was and allowed.index(share) != allowed.index(was) + 1:
            wrong.append(f"its share went from {was:g} to {share:g}")
    if watching.shares == [0.0] and clients.by_candidate:
        wrong.append(f"{clients.by_candidate} requests went to a candidate without a share")
    return wrong


async def _after(clients: Clients, phase: str) -> list[str]:
    """Who serves once it is over."""
    side, other = ("candidate", "stable") if phase == "promoted" else ("stable", "candidate")
    settled = asyncio.get_running_loop().time() + 5.0
    while True:
        began = {one: len(clients.took_s[one]) for one in (side, other)}
        answered = clients.answered
        while clients.answered < answered + 3 * len(clients.failed) + 40:
            await asyncio.sleep(0.05)
            if asyncio.get_running_loop().time() > settled + 5.0:
                return [f"no 40 requests were answered after it had ended {phase}"]
        if len(clients.took_s[other]) == began[other]:
            return []
        if asyncio.get_running_loop().time() > settled:
            return [f"{other} still serves after it had ended {phase}"]


def _engines(name: str) -> dict[str, Engine]:
    return {side: _engine(f"{side}-{name}", passed=True) for side in ("stable", "candidate")}


def _engine(name: str, *, passed: bool) -> Engine:
    now = datetime.now(UTC)
    return Engine(
        name=name,
        spec="twin",
        digest="0" * 64,
        lane="trt-engine",
        runtime="emulated",
        version="1.2.1",
        gpu_class="h100-sxm",
        precision="bf16",
        url="file:///nowhere",
        manifest_sha256="0" * 64,
        built_at=now,
        preflight=PreflightRecord(passed=passed, at=now),
    )


# -- what breaks ------------------------------------------------------------------------------------------


async def _candidate_killed(run: Run) -> None:
    await run.fleet.kill("beside")
    await run.watching.to_its_end(END_TIMEOUT_S)
    await run.fleet.start_again("beside")


async def _stable_killed(run: Run) -> None:
    await run.fleet.kill("triton")
    await asyncio.sleep(AWAY_S)
    if run.watching.over:
        raise BenchError(f"it ended {run.watching.phase} while the stable server was away")
    await run.fleet.start_again("triton")


async def _leader_killed(run: Run) -> None:
    """The second controller runs already, and leads within the dead one's leadership_ttl_s."""
    await run.fleet.start_controller("controller-2")
    await run.fleet.kill("controller")
    await run.watching.to_its_end(END_TIMEOUT_S)
    await run.fleet.start_again("controller")
    await run.fleet.end("controller-2")


async def _redis_stopped(run: Run) -> None:
    share = run.watching.shares[-1]
    await run.fleet.end("redis")
    await asyncio.sleep(AWAY_S)
    if run.watching.shares[-1] != share:
        raise BenchError(f"the share went to {run.watching.shares[-1]:g} while Redis was away")
    await run.fleet.start_again("redis")


async def _gateway_restarted(run: Run) -> None:
    await run.fleet.end("gateway-1")
    await run.fleet.start_again("gateway-1")


async def _preflight_failed(run: Run) -> None:
    await run.fleet.store.apply([_engine(run.rollout.candidate, passed=False)])


async def _candidate_deleted(run: Run) -> None:
    """Refused as long as the rollout names it; with all that needs it, it may go."""
    try:
        await run.fleet.store.delete("Deployment", run.rollout.candidate)
    except InUseError:
        await run.fleet.store.delete("Deployment", run.rollout.candidate, cascade=True)
        return
    raise BenchError("a deployment that a rollout names was deleted")


async def _rollout_deleted(run: Run) -> None:
    await run.fleet.store.delete("Rollout", run.rollout.name)


FAULTS: Mapping[str, Fault] = {
    "tried-server-killed-in-shadow": Fault("shadow", _candidate_killed, "rolled_back", "no ready endpoint"),
    "tried-server-killed-in-canary": Fault("canary", _candidate_killed, "rolled_back", "no ready endpoint"),
    "leader-killed": Fault("canary", _leader_killed, "promoted", "no worse in anything"),
    "redis-stopped": Fault("canary", _redis_stopped, "promoted", "the registry is away"),
    "gateway-restarted": Fault("canary", _gateway_restarted, "promoted", "no worse in anything"),
    "preflight-failed": Fault("canary", _preflight_failed, "rolled_back", "has not passed preflight"),
    "deployment-deleted": Fault("canary", _candidate_deleted, "gone", "r-deployment-deleted"),
    "rollout-deleted": Fault("canary", _rollout_deleted, "gone", "r-rollout-deleted"),
    "stable-killed-in-shadow": Fault(
        "shadow", _stable_killed, "promoted", "no ready endpoint", may_fail=True
    ),
    "stable-killed-in-canary": Fault("canary", _stable_killed, "promoted", "no ready endpoint"),
}
