"""Builders take builds from a real Redis and run real steps: what each ending means for the build."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from redis.asyncio import Redis

from engine_builder.build import StepCache, run
from engine_builder.build.builder import Builder, Make
from engine_builder.build.job import Job
from engine_builder.config import BuilderConfig
from engine_builder.errors import ClaimLostError, NoRoomError
from model_registry.build_jobs.entities import Able, AskedBuild, BuildClaim, EngineBuild
from model_registry.build_jobs.store import BuildStore, Terms
from model_registry.config import RegistryConfig
from model_registry.connection import connect
from model_registry.engines import Engine, PreflightRecord
from model_registry.store import RegistryStore
from tests.engine_builder.build.conftest import ROOMY, sh
from tests.model_registry.conftest import RedisServer, eventually, redis_client, redis_server, store, until
from tests.model_registry.patience import patient_config

__all__ = ["patient_config", "redis_client", "redis_server", "store"]

QUICK = BuilderConfig(lease_s=0.4, heartbeat_s=0.02, poll_s=0.02, drain_s=10.0, retry_s=0.01, grace_s=1.0)
DIGEST = "ab" * 32
ASKED = AskedBuild(f"chat-{DIGEST[:12]}", DIGEST, {"name": "chat"}, "emulated", "/engines")


@pytest.fixture
def builds(redis_client: Redis, config: RegistryConfig) -> BuildStore:
    return BuildStore.of(redis_client, config, Terms(attempts=2))


def engine(asked: AskedBuild = ASKED) -> Engine:
    return Engine(
        name=asked.engine, spec="chat", digest=asked.digest, lane="trt-engine", runtime="emulated",
        version="1.2.1", gpu_class="cpu", precision="bf16", url="/engines/chat", manifest_sha256="0" * 64,
        built_at=datetime(2030, 1, 1, tzinfo=UTC),
    )  # fmt: skip


class House:
    """Makes engines by one shell script each, and starts builders that do."""

    def __init__(self, folder: Path, builds: BuildStore, store: RegistryStore) -> None:
        self.folder = folder
        self.builds = builds
        self.store = store
        self.published: list[str] = []
        self._tasks: list[asyncio.Task[bool]] = []

    def make(self, script: str, *, room: bool = True) -> Make:
        """Two steps: the script, and one after it; then a publish that only takes note."""
        steps = sh("first", f"echo first >> {self.folder}/runs; {script}"), sh("second", "true", "first")

        def made(job: Job) -> Engine:
            if not room:
                raise NoRoomError("the disk is full", "make room")
            with StepCache(self.folder / "cache") as cache:
                run(steps, cache, job, stop=job.stop, guards=ROOMY, grace_s=1.0)
            job.confirm()
            self.published.append(job.claim.holder)
            return engine(job.claim.build.asked)

        return made

    def builder(self, make: Make, config: BuilderConfig = QUICK) -> Builder:
        return Builder(self.builds, self.store, make, Able(("emulated",)), config)

    def start(self, builder: Builder, *, once: bool = False) -> asyncio.Task[bool]:
        task = asyncio.create_task(builder.run(once=once))
        self._tasks.append(task)
        return task

    async def ended(self, build_id: str) -> EngineBuild:
        async def look() -> EngineBuild | None:
            build = await self.builds.get(build_id)
            return build if build.ended else None

        found = await eventually(look)
        assert found is not None
        return found

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@pytest.fixture
async def house(tmp_path: Path, builds: BuildStore, store: RegistryStore) -> AsyncIterator[House]:
    house = House(tmp_path, builds, store)
    yield house
    await house.close()


def appeared(path: Path) -> Callable[[], bool]:
    return path.exists


async def test_once_without_redis_is_not_well(house: House, config: RegistryConfig) -> None:
    """That there is no work left was not seen."""
    redis = connect(RegistryConfig(redis_url="redis://127.0.0.1:1/0", command_timeout_s=1))
    away = Builder(BuildStore.of(redis, config), house.store, house.make("true"), Able(("emulated",)), QUICK)
    assert not await away.run(once=True)
    await redis.aclose()


async def test_a_build_becomes_an_engine_of_the_registry(house: House) -> None:
    """Others read how far it is and what its steps wrote."""
    build = await house.builds.ask(ASKED)
    assert await house.start(house.builder(house.make("echo hello; echo > {output}/x")), once=True)
    ended = await house.builds.get(build.id)
    assert (ended.state, ended.error) == ("succeeded", None)
    assert (ended.progress.step, ended.progress.number, ended.progress.phase) == ("second", 2, "done")
    assert [line.text for line in (await house.builds.log(build.id)).lines] == ["hello"]
    assert await house.store.get("Engine", ASKED.engine) == engine()


async def test_an_engine_that_is_known_keeps_what_was_found_about_it(house: House) -> None:
    """Built again, it is the same engine."""
    passed = PreflightRecord(passed=True, at=datetime(2030, 1, 2, tzinfo=UTC))
    known = engine().model_copy(update={"preflight": passed})
    await house.store.apply([known])
    build = await house.builds.ask(ASKED)
    await house.start(house.builder(house.make("true")), once=True)
    assert (await house.builds.get(build.id)).state == "succeeded"
    assert await house.store.get("Engine", ASKED.engine) == known


async def test_a_step_that_fails_fails_the_build_with_its_log(house: House) -> None:
    """At once: the same would fail again."""
    build = await house.builds.ask(ASKED)
    assert not await house.start(house.builder(house.make("echo no such plugin; exit 3")), once=True)
    ended = await house.builds.get(build.id)
    assert (ended.state, ended.attempts) == ("failed", 1)
    assert ended.error is not None
    assert "its program exited with 3" in ended.error.message
    assert ended.error.log_end == "no such plugin"
    assert "repro.sh" in ended.error.remedy
    assert not house.published


async def test_a_mistake_of_ours_fails_the_build_and_not_the_builder(house: House) -> None:
    def broken(job: Job) -> Engine:
        raise ZeroDivisionError("oops")

    build = await house.builds.ask(ASKED)
    assert not await house.start(house.builder(broken), once=True)
    ended = await house.builds.get(build.id)
    assert ended.error is not None
    assert (ended.state, ended.error.message) == ("failed", "ZeroDivisionError('oops')")


async def test_a_build_without_room_goes_elsewhere(house: House) -> None:
    """To a builder that has some, while there are attempts left."""
    build = await house.builds.ask(ASKED)
    later = QUICK.model_copy(update={"retry_s": 0.5})
    full = house.builder(house.make("true", room=False), later)
    assert not await house.start(full, once=True)
    waiting = await house.builds.get(build.id)
    assert (waiting.state, waiting.error and waiting.error.remedy) == ("queued", "make room")
    house.start(house.builder(house.make("true")))
    assert (await house.ended(build.id)).state == "succeeded"


async def test_a_cancelled_build_ends_its_step(house: House, tmp_path: Path) -> None:
    build = await house.builds.ask(ASKED)
    house.start(house.builder(house.make(f"touch {tmp_path}/on; exec sleep 60")))
    await until(appeared(tmp_path / "on"))
    await house.builds.cancel(build.id)
    assert (await house.ended(build.id)).state == "cancelled"
    assert not house.published


async def test_a_builder_that_ends_gives_its_build_back_after_the_step(house: House, tmp_path: Path) -> None:
    """Another one goes on with the next; the attempt does not count."""
    build = await house.builds.ask(ASKED)
    script = f"touch {tmp_path}/on; while [ ! -e {tmp_path}/go ]; do sleep 0.01; done"
    first = house.builder(house.make(script))
    running = house.start(first)
    await until(appeared(tmp_path / "on"))
    first.end()
    (tmp_path / "go").touch()
    await running
    given_back = await house.builds.get(build.id)
    assert (given_back.state, given_back.attempts) == ("queued", 0)
    house.start(house.builder(house.make(script)))
    assert (await house.ended(build.id)).state == "succeeded"
    assert (tmp_path / "runs").read_text() == "first\n"


async def test_a_builder_that_ends_does_not_wait_for_a_long_step(house: House, tmp_path: Path) -> None:
    """Past `drain_s` the step is ended, and run anew elsewhere."""
    build = await house.builds.ask(ASKED)
    hasty = QUICK.model_copy(update={"drain_s": 0.05})
    builder = house.builder(house.make(f"touch {tmp_path}/on; exec sleep 60"), hasty)
    running = house.start(builder)
    await until(appeared(tmp_path / "on"))
    builder.end()
    await running
    assert (await house.builds.get(build.id)).state == "queued"


async def test_a_builder_that_ends_while_it_claims_gives_the_build_back(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it is run."""
    build = await house.builds.ask(ASKED)
    builder = house.builder(house.make("true"))
    claim = house.builds.claim

    async def late(worker: str, able: Able, lease_s: float) -> BuildClaim | None:
        found = await claim(worker, able, lease_s)
        builder.end()
        return found

    monkeypatch.setattr(house.builds, "claim", late)
    assert await house.start(builder)
    given_back = await house.builds.get(build.id)
    assert (given_back.state, given_back.attempts) == ("queued", 0)
    assert not (house.folder / "runs").exists()


async def test_a_stale_builder_does_not_publish(house: House, redis_client: Redis) -> None:
    """Its claim went to another one while it packaged: it is told right before the rename."""
    build = await house.builds.ask(ASKED)
    packaged, woken = threading.Event(), threading.Event()
    lost: list[Exception] = []

    def slow(job: Job) -> Engine:
        packaged.set()
        woken.wait(10)
        try:
            job.confirm()
        except ClaimLostError as error:
            lost.append(error)
            raise
        house.published.append("stale")
        return engine()

    silent = QUICK.model_copy(update={"heartbeat_s": 60.0})  # says nothing, as if its host had stood still
    stale = house.start(house.builder(slow, silent), once=True)
    await until(packaged.is_set)
    house.start(house.builder(house.make("true")))
    assert (await house.ended(build.id)).state == "succeeded"
    woken.set()
    assert not await stale
    assert len(lost) == 1
    assert len(house.published) == 1
    assert "stale" not in house.published


async def test_a_builder_outlives_a_redis_that_is_away(
    house: House, tmp_path: Path, redis_server: RedisServer
) -> None:
    """The step goes on; the engine is published and stored when Redis is back."""
    build = await house.builds.ask(ASKED)
    script = f"touch {tmp_path}/on; while [ ! -e {tmp_path}/go ]; do sleep 0.01; done"
    house.start(house.builder(house.make(script)))
    await until(appeared(tmp_path / "on"))
    redis_server.kill()
    (tmp_path / "go").touch()
    await until(lambda: any((tmp_path / "cache").glob("[0-9a-f][0-9a-f]/*")))
    assert not house.published
    redis_server.start()
    assert (await house.ended(build.id)).state == "succeeded"
    assert len(house.published) == 1
