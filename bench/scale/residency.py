"""Residency live: ten models on a server with room for three, a leak, and the server's restart.

    python -m bench.scale.residency [--quick] [--seed 1]

One real Triton with an emulated GPU, Redis, a controller and two gateways; Poisson arrivals, models by
Zipf's law. Hits are requests whose model was in memory or on its way; the optimum beside them is Belady's,
for the same requests in the same order: of those in memory the one goes that is asked for last. The last
line is `RESULT {json}`.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from math import inf
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp

from bench import campaign
from bench.scale.asking import Outcome
from bench.scale.model_callers import ModelCallers
from bench.stack import Stack, running
from emulator.engine import EngineLimits
from emulator.triton.gpu_ledger import FILE, TOTAL_MIB, LedgerLine, read_ledger
from emulator.triton.repository import EngineSpec, GpuModels, TrtEngineModels, build_emulator_repository
from enginehouse.local.model_servers import weights_folder
from enginehouse.local.triton import TritonProcess
from enginehouse.local.triton_environment import ensure_environment
from model_registry.config import RegistryConfig
from model_registry.connection import connect
from model_registry.entities import Deployment, Model, Scaling
from model_registry.pools import Pool, PoolServer, TritonActuator
from model_registry.store import RegistryStore

MODELS, ROOM, EXPONENT = 10, 3, 1.1
MODEL_MIB, LEAK_MIB = 100, 50
GPU_MIB = ROOM * MODEL_MIB
RATE = 1.0
LOAD_S = 1.0
RUN_S, QUICK_S = 600.0, 90.0
WITHIN = 5.0
"""Percentage points of the optimum's hit rate."""
HEALS_WITHIN_S = 60.0
TENANT = "house"
NAMES = [f"tune-{number}" for number in range(MODELS)]
Say = Callable[[str], None]


class Fleet:
    """What runs, and the one server's restarts."""

    def __init__(self, stack: Stack, triton: TritonProcess, folder: Path) -> None:
        self.stack, self.triton, self._folder = stack, triton, folder
        self.restarts = 0

    @property
    def ledger(self) -> list[LedgerLine]:
        return read_ledger(self._folder / "gpu.jsonl")

    def fault_file(self, model: str) -> Path:
        return fault_file(self._folder, model)

    async def deploy(self) -> None:
        """All models, in one pool with a budget."""
        server = PoolServer(
            http=self.triton.http_url,
            grpc=self.triton.grpc_url,
            metrics=self.triton.metrics_url,
            memory_mib=GPU_MIB,
        )
        recycle = (sys.executable, "-m", "bench.scale.ask_for_restart", str(self._folder))
        actuator = TritonActuator(type="triton", servers=(server,), leak_mib=LEAK_MIB, recycle=recycle)
        weights = str(weights_folder("depot-chat"))
        scaling = Scaling(pool="gpu", min_replicas=0, cold_start_s=2 * LOAD_S, memory_mib=MODEL_MIB)
        config = RegistryConfig(redis_url=self.stack.redis_url)
        redis = connect(config)
        try:
            version = await RegistryStore.of(redis, config).apply(
                [
                    *(Model(name=name, context_length=1024, tokenizer=weights) for name in NAMES),
                    Pool(name="gpu", actuator=actuator),
                    *(Deployment(name=name, model=name, scaling=scaling) for name in NAMES),
                ]
            )
        finally:
            await redis.aclose()
        await self.stack.until(lambda shown: shown["version"] >= version, "the deployments")

    async def restart_when_asked(self) -> None:
        """What the pool's `recycle` asks for; until cancelled."""
        wanted, done = self._folder / "restart.wanted", self._folder / "restart.done"
        while True:
            if wanted.exists():
                await self.triton.stop()
                await self.triton.start()
                await self.triton.ready()
                self.restarts += 1
                wanted.unlink()
                done.touch()
            await asyncio.sleep(0.1)


def fault_file(folder: Path, model: str) -> Path:
    """Of one model's engine."""
    return folder / f"fault-{model}.json"


@asynccontextmanager
async def fleet(folder: Path) -> AsyncIterator[Fleet]:
    """Everything, ready, with nothing loaded; until the block ends. Raises CommandError or BenchError."""
    limits = EngineLimits(max_batch_size=8, max_seq_len=1024, max_input_len=900)
    engines = [
        TrtEngineModels(
            EngineSpec(
                weights_folder("depot-chat"),
                limits,
                gpu_mib=MODEL_MIB,
                load_s=LOAD_S,
                fault_file=fault_file(folder, name),
                stats_check_period_ms=1000,
            ),
            name=name,
        )
        for name in NAMES
    ]
    repository = folder / "repository"
    await asyncio.to_thread(build_emulator_repository, repository, [GpuModels(), *engines])
    triton = TritonProcess(
        "triton",
        await ensure_environment(),
        repository,
        folder / "triton.log",
        load=["emulated_gpu"],
        environment={FILE: str(folder / "gpu.jsonl"), TOTAL_MIB: str(GPU_MIB)},
    )
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        stack = Stack(folder, session)
        async with running(stack, gateways=2, tenants=(TENANT,), beside=[triton]):
            up = Fleet(stack, triton, folder)
            restarting = asyncio.create_task(up.restart_when_asked())
            try:
                yield up
            finally:
                restarting.cancel()


def trace(seed: int, for_s: float) -> list[tuple[float, str]]:
    """When which model is asked for."""
    rng, at_s, arrivals = random.Random(seed), 0.0, []
    weights = [1 / (rank + 1) ** EXPONENT for rank in range(MODELS)]
    while (at_s := at_s + rng.expovariate(RATE)) < for_s:
        arrivals.append((at_s, rng.choices(NAMES, weights)[0]))
    return arrivals


def optimal_hit_rate(models: Sequence[str], room: int) -> float:
    """Belady's: each miss takes the place of the one that is asked for last, and takes no time."""
    never, later = len(models), dict[str, int]()
    following = [never] * len(models)
    for place in reversed(range(len(models))):
        following[place] = later.get(models[place], never)
        later[models[place]] = place
    held: dict[str, int] = {}
    hits = 0
    for place, model in enumerate(models):
        if model in held:
            hits += 1
        elif len(held) == room:
            del held[max(held, key=lambda one: held[one])]
        held[model] = following[place]
    return hits / len(models)


def misses(asked: Sequence[Outcome]) -> int:
    """Requests for models that were neither in memory nor on their way: of those held together, the first."""
    until_s: dict[str, float] = {}
    count = 0
    for one in sorted(asked, key=lambda one: one.sent_s):
        if one.cold and one.sent_s > until_s.get(one.model, -inf):
            count += 1
        if one.cold and one.first_s is not None:
            until_s[one.model] = max(until_s.get(one.model, -inf), one.first_s)
    return count


async def packing(up: Fleet, seed: int, for_s: float, say: Say) -> dict[str, Any]:
    """Zipf's traffic for so long."""
    arrivals = trace(seed, for_s)
    callers = ModelCallers(up.stack, TENANT)
    loads_before = len(up.ledger)
    await callers.come(arrivals, say)
    await callers.answered()
    wrong = [one.wrong for one in callers.asked if one.wrong is not None]
    lines = up.ledger[loads_before:]
    over = [line for line in lines if line.used_mib > GPU_MIB or line.what == "refused"]
    hit_rate = 1 - misses(callers.asked) / len(callers.asked)
    optimum = optimal_hit_rate([model for _, model in arrivals], ROOM)
    waits = sorted(one.ttft_s for one in callers.asked if one.cold and one.ttft_s is not None)
    return {
        "requests": len(callers.asked),
        "failed": len(wrong),
        "failures": sorted(set(wrong))[:5],
        "over_budget": len(over),
        "most_used_mib": max((line.used_mib for line in lines), default=0),
        "budget_mib": GPU_MIB,
        "loads": sum(line.what == "load" for line in lines),
        "hit_percent": round(100 * hit_rate, 1),
        "optimum_percent": round(100 * optimum, 1),
        "held_percent": round(100 * sum(one.cold for one in callers.asked) / len(callers.asked), 1),
        "held_median_s": round(median(waits), 2) if waits else None,
        "held_longest_s": round(waits[-1], 2) if waits else None,
        "ok": not wrong and not over and 100 * hit_rate >= 100 * optimum - WITHIN,
    }


async def leak(up: Fleet, say: Say) -> dict[str, Any]:
    """An unload that gives nothing back: it is found, and the server drained and restarted, under traffic."""
    callers = ModelCallers(up.stack, TENANT)
    for name in NAMES:
        up.fault_file(name).write_text(json.dumps({"fault": "leak"}))
    began_s = time.monotonic()
    leaked_s = healed_s = None
    rng = random.Random(0)
    while time.monotonic() - began_s < 2 * HEALS_WITHIN_S and healed_s is None:
        callers.ask(rng.choice(NAMES))
        await asyncio.sleep(1 / RATE)
        if leaked_s is None and any(line.what == "leak" for line in up.ledger):
            leaked_s = time.monotonic()
            say("a model leaked")
            for name in NAMES:
                up.fault_file(name).unlink()
        if leaked_s is not None and up.restarts:
            healed_s = time.monotonic()
            say("the server was restarted")
    await callers.answered()
    wrong = [one.wrong for one in callers.asked if one.wrong is not None]
    took_s = None if leaked_s is None or healed_s is None else healed_s - leaked_s
    return {
        "requests": len(callers.asked),
        "failed": len(wrong),
        "failures": sorted(set(wrong))[:5],
        "restarts": up.restarts,
        "healed_after_s": None if took_s is None else round(took_s, 1),
        "refused_loads": sum(line.what == "refused" for line in up.ledger),
        "ok": not wrong and took_s is not None and took_s <= HEALS_WITHIN_S and up.restarts == 1,
    }


async def residency(seed: int, for_s: float, say: Say, folder: Path) -> dict[str, Any]:
    """Both; the processes it starts have ended when it returns."""
    async with fleet(folder) as up:
        await up.deploy()
        say(f"{MODELS} models, room for {ROOM}")
        packed = await packing(up, seed, for_s, say)
        say(json.dumps(packed))
        leaked = await leak(up, say)
    return {"packing": packed, "leak": leaked, "ok": packed["ok"] and leaked["ok"]}


def main() -> int:
    """0: all is as it should be; 1: not; 2: it could not be measured."""
    parser = campaign.parser(__doc__, "python -m bench.scale.residency --quick")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_S:g} s instead of {RUN_S:g} s")
    parser.add_argument("--seed", type=int, default=1, help="of arrivals; default: 1")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="folder for logs, which stay")
    options = parser.parse_args()
    for_s = QUICK_S if options.quick else RUN_S
    return campaign.concluded(_alone(options.seed, for_s, options.keep))


async def _alone(seed: int, for_s: float, keep: Path | None) -> dict[str, Any]:
    began_s = time.monotonic()
    say = campaign.said_since(began_s)
    with tempfile.TemporaryDirectory(prefix="enginehouse-residency-") as temporary:
        folder = keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        told = await residency(seed, for_s, say, folder)
    return {**told, "seed": seed, "took_s": round(time.monotonic() - began_s, 1)}


if __name__ == "__main__":
    sys.exit(main())
