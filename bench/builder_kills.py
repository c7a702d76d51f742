"""Is an engine built once and whole while its builders are killed? (`python -m bench.builder_kills`)

Two builder processes share builds, a cache and a store; random ones get SIGKILL at random moments, or are
frozen until their claim has lapsed, and wake up as stale holders. Meanwhile store, registry and cache are
looked at all the time: whatever can be seen in them must be whole. Ends with `RESULT {json}`; exit code 0:
all is well.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from bench import real_engines, tiny_engines
from bench.batch_jobs import redis
from bench.campaign import concluded
from bench.campaign import parser as parser_of
from bench.killed_builder import TERMS
from engine_builder.build.cache import Entry, StepCache
from engine_builder.checkpoint import DigestCache
from enginehouse.building import Parts, resolved
from enginehouse.local.state_dir import STATE_DIR_ENV
from model_registry.build_jobs.store import BuildStore
from model_registry.config import RegistryConfig
from model_registry.connection import RedisClient, connect
from model_registry.engine_specs import EngineSpec
from model_registry.engines import Engine
from model_registry.errors import RegistryUnavailableError
from model_registry.store import RegistryStore

BUILDERS = 2
OPEN_BUILDS = 3
"""Kept waiting or running while there are kills to come."""
LOOK_EVERY_S = 0.02
DEADLINE_S = 1800.0
_WORKS_WITHIN_S, _TAKEN_WITHIN_S = 20.0, 20.0
LOST = "build lost to another builder"
"""What a builder logs that finds itself stale."""
MARK = "HOUSE_BUILDER_KILLS"


class Engines(Protocol):
    """Engines that a campaign makes: a module such as `bench.tiny_engines`."""

    __name__: str
    STEPS: int

    def parts(self, folder: Path) -> Parts: ...

    def checkpoint(self, folder: Path) -> None: ...

    def spec(self, folder: Path, number: int) -> EngineSpec: ...

    def whole(self, folder: Path, state: Path) -> bool: ...


@dataclass
class Seen:
    """What the campaign did, and what it saw that must not be."""

    kills: int = 0
    freezes: int = 0
    stale: int = 0
    """Frozen builders whose build another one had when they woke up."""
    looks: int = 0
    broken: list[str] = field(default_factory=list)


class Campaign:
    """Builders, builds, and the eye on what they leave."""

    def __init__(
        self, folder: Path, redis_url: str, client: RedisClient, choose: random.Random, engines: Engines
    ) -> None:
        self.folder = folder
        self.seen = Seen()
        self._redis_url = redis_url
        registry = RegistryConfig(redis_url=redis_url)
        self._builds = BuildStore.of(client, registry, TERMS)
        self._registry = RegistryStore.of(client, registry)
        self._choose = choose
        self._mark = f"{os.getpid()}-{time.time_ns()}"
        self._asks = True
        self._asked: dict[str, str] = {}
        """Build id by engine."""
        self._engines = engines
        self._parts = engines.parts(folder)
        self._store, self._state = folder / "store", folder / "state"
        self._kill_within_s = 0.0
        """Of a builder that has begun to look for work."""
        self._known: set[Path] = set()
        """Folders that were seen whole; they are looked at again in the end."""
        engines.checkpoint(folder)

    async def run(self, kills: int, freezes: int) -> dict[str, Any]:
        """All kills, then all builds to their end without; what came out."""
        began_s = time.monotonic()
        what = ["kill"] * kills + ["freeze"] * freezes
        self._choose.shuffle(what)
        looking = asyncio.create_task(self._keep_looking())
        try:
            async with asyncio.timeout(DEADLINE_S):
                await self._measure()
                shares = [what[number::BUILDERS] for number in range(BUILDERS)]
                asking = asyncio.create_task(self._keep_asking())
                await asyncio.gather(*map(self._end_again_and_again, shares))
                self._asks = False  # rather than cancel: what is asked for is taken note of
                await asking
                async with self._builder():
                    while not await self._all_ended():  # noqa: ASYNC110 - other processes bring it about
                        await asyncio.sleep(0.05)
            self._known.clear()
            await self._look()
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)
        return await self._judged(time.monotonic() - began_s)

    async def _measure(self) -> None:
        """How long one build takes here and now, undisturbed: kills come within one and a half times that."""
        await self._ask_one()
        async with self._builder():
            began_s = time.monotonic()
            while not await self._all_ended():  # noqa: ASYNC110 - another process brings it about
                await asyncio.sleep(LOOK_EVERY_S)
            self._kill_within_s = 1.5 * (time.monotonic() - began_s)

    # -- builders -----------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _builder(self) -> AsyncIterator[asyncio.subprocess.Process]:
        """A builder process that looks for work; gone at the end of the block."""
        command = ["-m", "bench.killed_builder", str(self.folder), self._redis_url, self._engines.__name__]
        environment = {**os.environ, MARK: self._mark, STATE_DIR_ENV: str(self._state)}
        with (self.folder / "builders.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, *command, env=environment, stdout=subprocess.PIPE, stderr=log
            )
        assert process.stdout is not None
        try:
            assert await process.stdout.readline() == b"ready\n", (self.folder / "builders.log").read_text()
            yield process
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _end_again_and_again(self, what: Sequence[str]) -> None:
        for how in what:
            async with self._builder() as process:
                await asyncio.sleep(self._choose.uniform(0, self._kill_within_s))
                if how == "kill":
                    process.kill()
                    self.seen.kills += 1
                    continue
                await self._freeze(process)

    async def _freeze(self, process: asyncio.subprocess.Process) -> None:
        """Stop a builder that works on a build until another one has it; then wake it up."""
        has = f".{process.pid}."
        with suppress(TimeoutError):
            async with asyncio.timeout(_WORKS_WITHIN_S):
                while (build := await self._build_of(has)) is None:  # noqa: ASYNC110 - another process
                    await asyncio.sleep(LOOK_EVERY_S)
            process.send_signal(signal.SIGSTOP)
            async with asyncio.timeout(_TAKEN_WITHIN_S), self._builder():
                while has in (await self._builds.get(build)).worker:  # noqa: ASYNC110 - as above
                    await asyncio.sleep(LOOK_EVERY_S)
                self.seen.stale += 1
                process.send_signal(signal.SIGCONT)
                while not self._has_noticed(process.pid):  # noqa: ASYNC110 - as above
                    await asyncio.sleep(LOOK_EVERY_S)
        self.seen.freezes += 1

    def _has_noticed(self, pid: int) -> bool:
        return f"{pid} {LOST}\n" in (self.folder / "builders.log").read_text()

    async def _build_of(self, worker: str) -> str | None:
        builds = await self._builds.newest()
        return next((one.id for one in builds if one.state == "running" and worker in one.worker), None)

    # -- builds -------------------------------------------------------------------------------------------

    async def _keep_asking(self) -> None:
        """There is always work; each engine is asked for twice."""
        while self._asks:
            builds = await self._builds.newest()
            for _ in range(OPEN_BUILDS - sum(not build.ended for build in builds)):
                await self._ask_one()
            await asyncio.sleep(0.05)

    async def _ask_one(self) -> None:
        wanted = self._engines.spec(self.folder, len(self._asked) + 1)
        digests = DigestCache(self.folder / "digests.json")
        recipe = await asyncio.to_thread(resolved, wanted, "emulated", self._parts, digests)
        first, second = [await self._builds.ask(recipe.asked(str(self._store))) for _ in range(2)]
        if first.id != second.id and not first.ended:
            self.seen.broken.append(f"{recipe.engine} is built twice at once")
        self._asked[recipe.engine] = first.id

    async def _all_ended(self) -> bool:
        return all([(await self._builds.get(build)).ended for build in self._asked.values()])

    # -- the eye ------------------------------------------------------------------------------------------

    async def _keep_looking(self) -> None:
        while True:
            await self._look()
            await asyncio.sleep(LOOK_EVERY_S)

    async def _look(self) -> None:
        self.seen.looks += 1
        for engine in await self._registry.list("Engine"):
            assert isinstance(engine, Engine)
            if not await self._whole(Path(engine.url)):
                self.seen.broken.append(f"{engine.name} is registered, and its folder is not whole")
        for folder in _visible(self._store):
            if not await self._whole(folder):
                self.seen.broken.append(f"{folder.name} is in the store, and not whole")
        for folder in (self.folder / "cache").glob("[0-9a-f][0-9a-f]/*"):
            if Entry.read(folder) is None:
                self.seen.broken.append(f"{folder} is in the cache, and not whole")

    async def _whole(self, folder: Path) -> bool:
        if folder not in self._known and await asyncio.to_thread(self._engines.whole, folder, self._state):
            self._known.add(folder)
        return folder in self._known

    async def _judged(self, took_s: float) -> dict[str, Any]:
        builds = [await self._builds.get(build) for build in self._asked.values()]
        registered = [engine.name for engine in await self._registry.list("Engine")]
        versions = [len(await self._registry.history("Engine", name)) for name in registered]
        noted = self.folder / "runs.log"
        runs = Counter(noted.read_text().split() if noted.exists() else ())
        cache = StepCache(self.folder / "cache")
        cache.collect(1 << 40)
        lost = (self.folder / "builders.log").read_text().count(LOST)
        needed = len(self._asked) * self._engines.STEPS
        ends = self.seen.kills + 3 * self.seen.freezes
        checks = {
            "nothing_half_seen": not self.seen.broken,
            "every_build_succeeded": all(build.state == "succeeded" for build in builds),
            "every_engine_registered_once": sorted(registered) == sorted(self._asked),
            "no_engine_registered_anew": set(versions) == {1},
            "every_engine_in_the_store_once": sorted(f.name for f in _visible(self._store))
            == sorted(self._asked),
            "finished_steps_are_not_run_again": sum(runs.values()) - needed <= ends,
            "every_step_run": len(runs) == needed,
            "stale_builders_notice": lost >= self.seen.stale,
            "no_process_left": not _marked(self._mark),
            "no_work_folder_left": not list((self.folder / "cache" / "work").iterdir()),
        }
        return {
            "ok": all(checks.values()),
            "checks": checks,
            "broken": self.seen.broken[:10],
            "kills": self.seen.kills,
            "freezes": self.seen.freezes,
            "stale_builders_woken": self.seen.stale,
            "kill_within_s": round(self._kill_within_s, 2),
            "seconds": round(took_s, 1),
            "engines": len(self._asked),
            "errors": sorted({build.error.message for build in builds if build.error is not None})[:5],
            "builds_taken_up_again": sum(build.attempts > 1 for build in builds),
            "most_attempts": max(build.attempts for build in builds),
            "steps": needed,
            "step_runs": sum(runs.values()),
            "looks": self.seen.looks,
            "claims_lost": lost,
        }


def _visible(store: Path) -> list[Path]:
    return [f for f in store.iterdir() if not f.name.startswith(".")] if store.exists() else []


def _marked(mark: str) -> list[int]:
    """What a builder of this campaign has started and left running; it gets some seconds to end."""
    deadline_s = time.monotonic() + 5.0
    while True:
        found = []
        for entry in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                if f"{MARK}={mark}".encode() in entry.read_bytes().split(b"\0"):
                    found.append(int(entry.parent.name))
        if not found or time.monotonic() > deadline_s:
            return found
        time.sleep(0.05)


async def campaign(kills: int, freezes: int, seed: int, engines: Engines = tiny_engines) -> dict[str, Any]:
    """Run it in a folder and a Redis of its own."""
    with tempfile.TemporaryDirectory(prefix="enginehouse-builder-kills-") as name:
        async with redis(Path(name)) as url:
            client = connect(RegistryConfig(redis_url=url))
            try:
                async with asyncio.timeout(10):
                    while True:
                        with suppress(RegistryUnavailableError):
                            await RegistryStore(client).position()
                            break
                        await asyncio.sleep(0.02)
                chosen = random.Random(seed)
                told = await Campaign(Path(name), url, client, chosen, engines).run(kills, freezes)
                return {**told, "seed": seed}
            finally:
                await client.aclose()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of(__doc__, "python -m bench.builder_kills --kills 10 --freezes 2")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--freezes", type=int, default=8, help="builders stopped past their claim, and woken")
    parser.add_argument("--seed", type=int, default=None, help="of the moments; default: the clock")
    parser.add_argument(
        "--real", action="store_true", help="the whole path by doubles of TensorRT-LLM, not tiny engines"
    )
    options = parser.parse_args(arguments)
    seed = time.time_ns() if options.seed is None else options.seed
    engines: Engines = real_engines if options.real else tiny_engines
    return concluded(campaign(options.kills, options.freezes, seed, engines))


if __name__ == "__main__":
    sys.exit(main())
