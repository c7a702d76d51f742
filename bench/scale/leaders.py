"""Leaders: controllers are killed and frozen while they scale; who acted, and is anything left?

Real Redis, several controllers, a pool of processes whose servers tell who started and who ended them. The
claim to lead is read from Redis all the time: whoever acts must have it.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import secrets
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from bench.build import BenchError
from bench.scale import tiny_server
from enginehouse.local.ports import free_port
from enginehouse.local.redis import redis_service, redis_url, require_redis
from enginehouse.local.service import CommandService
from model_registry.config import RegistryConfig
from model_registry.connection import RedisClient, connect
from model_registry.demand.demand import WorkerDemand
from model_registry.demand.store import DemandStore
from model_registry.entities import Deployment, Model, Scaling
from model_registry.keys import Keys
from model_registry.leadership import boot_s
from model_registry.pools import Pool, ProcessActuator
from model_registry.store import RegistryStore
from telemetry.process_stat import stat_of

MOST = 6
SAMPLE_S = 0.005
REPORT_S = 0.5
SLACK_S = 0.1
"""Between an act and its mark, or a change of the claim and the sample that shows it."""
SETTLED_WITHIN_S = 60.0


class Pace(NamedTuple):
    """What the controllers are told, and how long a frozen one sleeps at most."""

    controllers: int = 3
    ttl_s: float = 4.0
    interval_s: float = 1.0
    margin_s: float = 1.0
    frozen_s: float = 8.0
    freeze_every: int = 5
    """Each so many-th leader is frozen past its claim in place of killed, and wakes as a stale one."""
    take_over_s: float = 5.0
    """The most that a take-over may last."""


AS_SHIPPED = Pace()


class Term(NamedTuple):
    """One claim to lead, as Redis had it."""

    token: int
    pid: int
    began_s: float


@dataclass
class Campaign:
    """What runs, and what was seen."""

    folder: Path
    redis: RedisClient
    store: RegistryStore
    url: str
    rng: random.Random
    pace: Pace
    controllers: list[CommandService] = field(default_factory=list)
    terms: list[Term] = field(default_factory=list)
    takeovers_s: list[float] = field(default_factory=list)
    freezes: int = 0
    started: int = 0

    @property
    def acts_file(self) -> Path:
        """Where servers tell what was done to them."""
        return self.folder / "acts.jsonl"

    def acts(self) -> list[dict[str, Any]]:
        """All of it, by time."""
        text = self.acts_file.read_text() if self.acts_file.exists() else ""
        return sorted((json.loads(line) for line in text.splitlines()), key=lambda act: float(act["at_s"]))

    def alive(self) -> list[int]:
        """Servers that run."""
        return [act["pid"] for act in self.acts() if act["act"] == "start" and stat_of(act["pid"])]

    async def watch_claims(self) -> None:
        """Follow who leads."""
        key = Keys("default").of("leader")
        while True:
            held = await self.redis.hmget(key, ["holder", "token"])
            holder, token = (str(one or "") for one in held)
            if holder and (not self.terms or self.terms[-1].token != int(token)):
                self.terms.append(Term(int(token), int(holder.split(":")[1]), boot_s()))
            await asyncio.sleep(SAMPLE_S)

    async def report(self) -> None:
        """Tell, as a gateway without requests does."""
        reports = DemandStore(self.redis, "default", 2.0)
        while True:
            await reports.report("bench", WorkerDemand())
            await asyncio.sleep(REPORT_S)

    async def start_controller(self) -> None:
        """One more."""
        self.started += 1
        name = f"controller-{self.started}"
        environment = {
            "ENGINEHOUSE_REGISTRY__REDIS_URL": self.url,
            "ENGINEHOUSE_CONTROLLER__STATE_PATH": str(self.folder / "state"),
            "ENGINEHOUSE_CONTROLLER__INTERVAL_S": str(self.pace.interval_s),
            "ENGINEHOUSE_CONTROLLER__LEADERSHIP_TTL_S": str(self.pace.ttl_s),
            "ENGINEHOUSE_CONTROLLER__REPLICAS__MARGIN_S": str(self.pace.margin_s),
            "ENGINEHOUSE_CONTROLLER__REPLICAS__ORPHAN_S": "2",
            "ENGINEHOUSE_CONTROLLER__REPLICAS__LOOK_S": "1",
        }
        command = [sys.executable, "-m", "enginehouse", "controller"]
        service = CommandService(name, command, self.folder / f"{name}.log", environment)
        await service.start()
        self.controllers.append(service)

    async def ask_for(self, replicas: int) -> None:
        """So many, no less and no more."""
        await self.store.apply([_deployment(replicas)])

    async def until(self, true: Callable[[], bool], what: str, within_s: float = SETTLED_WITHIN_S) -> None:
        """Wait until it holds. Raises BenchError."""
        deadline_s = time.monotonic() + within_s
        while not true():
            if time.monotonic() > deadline_s:
                raise BenchError(f"{what} did not come about within {within_s:g} s; see {self.folder}")
            await asyncio.sleep(0.02)

    async def settled(self, replicas: int) -> None:
        """Wait until exactly these serve, by records, endpoints and processes."""
        deadline_s = time.monotonic() + SETTLED_WITHIN_S
        while True:
            snapshot = await self.store.load()
            states = [one.state for one in snapshot.replicas.get("d", ())]
            serving = sum(one.state == "ready" for one in snapshot.endpoints.get("m", ()))
            alive = len(self.alive())
            if states == ["ready"] * replicas and serving == alive == replicas:
                return
            if time.monotonic() > deadline_s:
                there = f"{states}, {serving} serving, {alive} alive"
                raise BenchError(f"{replicas} wanted, after {SETTLED_WITHIN_S:g} s: {there}")
            await asyncio.sleep(0.05)


def _deployment(replicas: int) -> Deployment:
    scaling = Scaling(pool="p", min_replicas=replicas, max_replicas=max(1, replicas), idle_s=1)
    return Deployment(name="d", model="m", lane="openai-http", scaling=scaling)


async def leaders(
    gone: int, seed: int, say: Callable[[str], None], folder: Path, pace: Pace = AS_SHIPPED
) -> dict[str, Any]:
    """Kill or freeze the leader so many times in the middle of scaling; what that came to."""
    async with _campaign(folder, seed, pace) as campaign:
        for number in range(1, gone + 1):
            await _one(campaign, number)
            if number % 10 == 0:
                say(f"{number} leaders gone; take-over at most {max(campaign.takeovers_s):.2f} s")
        await campaign.ask_for(0)
        await campaign.settled(0)
        await asyncio.sleep(pace.margin_s + 2.0)  # what a stale leader might start, and a look that finds it
        await campaign.settled(0)
        return _judged(campaign)


async def _one(campaign: Campaign, number: int) -> None:
    wanted = campaign.rng.choice([n for n in range(1, MOST + 1) if n != len(campaign.alive())])
    await campaign.ask_for(wanted)
    await asyncio.sleep(campaign.rng.uniform(0.0, 0.5))
    term = campaign.terms[-1]
    victim = next(one for one in campaign.controllers if one.pid == term.pid)
    freezes = number % campaign.pace.freeze_every == 0
    began_s = boot_s()
    os.kill(term.pid, signal.SIGSTOP if freezes else signal.SIGKILL)
    if freezes:
        campaign.freezes += 1
    else:
        campaign.controllers.remove(victim)
        await victim.wait()
        await campaign.start_controller()
    await campaign.until(lambda: campaign.terms[-1].token != term.token, "a new leader")
    campaign.takeovers_s.append(campaign.terms[-1].began_s - began_s)
    if freezes:
        left_s = max(0.0, campaign.pace.frozen_s - (boot_s() - began_s))
        await asyncio.sleep(left_s * campaign.rng.random())
        os.kill(term.pid, signal.SIGCONT)
    await campaign.settled(wanted)


def _judged(campaign: Campaign) -> dict[str, Any]:
    acts, state = campaign.acts(), campaign.folder / "state"
    wrong = [act for act in acts if not _was_leaders(act, campaign.terms)]
    starts = [act["replica"] for act in acts if act["act"] == "start"]
    stops = [act for act in acts if act["act"] == "stop"]
    left = [str(path.relative_to(state)) for path in state.rglob("*.json")]
    result = {
        "kills": len(campaign.takeovers_s) - campaign.freezes,
        "freezes": campaign.freezes,
        "controllers": campaign.pace.controllers,
        "starts": len(starts),
        "stops": len(stops),
        "acts_without_claim": len(wrong),
        "started_twice": len(starts) - len(set(starts)),
        "orphans": len(campaign.alive()) + len(left),
        "take_over_s": {
            "median": round(sorted(campaign.takeovers_s)[len(campaign.takeovers_s) // 2], 2),
            "most": round(max(campaign.takeovers_s), 2),
        },
    }
    clean = not (result["acts_without_claim"] or result["started_twice"] or result["orphans"])
    return {
        **result,
        "wrong": wrong[:5],
        "ok": clean and max(campaign.takeovers_s) < campaign.pace.take_over_s and bool(stops),
    }


def _was_leaders(act: dict[str, Any], terms: list[Term]) -> bool:
    """By a claim that was held when it was done: of its token, or by the process that has it."""
    for term, follower in zip(terms, [*terms[1:], None], strict=True):
        ends_s = float("inf") if follower is None else follower.began_s
        if term.began_s - SLACK_S <= act["at_s"] <= ends_s + SLACK_S:
            if act["act"] == "start" and act["token"] == term.token:
                return True
            if act["act"] == "stop" and act["by"] == term.pid:
                return True
    return False


@asynccontextmanager
async def _campaign(folder: Path, seed: int, pace: Pace) -> AsyncIterator[Campaign]:
    password, port = secrets.token_urlsafe(16), free_port()
    redis = redis_service(require_redis(), folder, port, password, folder / "redis.log")
    await redis.start()
    await redis.ready()
    url = redis_url(port, password)
    config = RegistryConfig(redis_url=url)
    client = connect(config)
    campaign = Campaign(folder, client, RegistryStore.of(client, config), url, random.Random(seed), pace)
    beside: list[asyncio.Task[None]] = []
    try:
        actuator = ProcessActuator(
            type="process",
            command=(
                sys.executable,
                "-S",
                "-E",
                tiny_server.__file__,
                "{http_port}",
                str(campaign.acts_file),
            ),
            stop_timeout_s=5,
        )
        await campaign.store.apply(
            [Model(name="m", context_length=100), Pool(name="p", actuator=actuator), _deployment(1)]
        )
        for _ in range(pace.controllers):
            await campaign.start_controller()
        beside += [asyncio.create_task(work) for work in (campaign.watch_claims(), campaign.report())]
        await campaign.settled(1)
        yield campaign
    finally:
        for task in beside:
            task.cancel()
        for controller in campaign.controllers:
            if controller.pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(controller.pid, signal.SIGCONT)
        await asyncio.gather(*(one.stop(5.0) for one in campaign.controllers))
        for pid in campaign.alive():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await client.aclose()
        await redis.stop(5.0)
