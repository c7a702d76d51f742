"""Engine builds in a real Redis: who may work on one, and what a stale builder cannot do."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from model_registry.build_jobs.entities import (
    BUILD_STATES,
    Able,
    AskedBuild,
    BuildClaim,
    BuildError,
    BuildProgress,
    EngineBuild,
    LogLine,
)
from model_registry.build_jobs.errors import BuildClaimLostError, BuildOverError, UnknownBuildError
from model_registry.build_jobs.keys import CATALOGUE, Keys
from model_registry.build_jobs.scripting import source
from model_registry.build_jobs.store import LOG_LINES, BuildStore, Terms
from model_registry.config import RegistryConfig
from model_registry.engines import Engine
from model_registry.keys import Keys as RegistryKeys
from model_registry.states import BUILD
from model_registry.store import RegistryStore
from tests.model_registry.conftest import eventually
from tests.model_registry.patience import patient_config

__all__ = ["patient_config"]

ABLE = Able(("emulated",))
LEASE_S = 30.0
SHORT_S = 0.03
DIGEST = "ab" * 32


@pytest.fixture
def builds(redis_client: Redis, config: RegistryConfig) -> BuildStore:
    return BuildStore.of(redis_client, config, Terms(attempts=2))


def asked(digest: str = DIGEST, **changes: Any) -> AskedBuild:
    fields: dict[str, Any] = {"spec": {"name": "chat"}, "runtime": "emulated", "store_url": "/engines"}
    return AskedBuild(**{"engine": f"chat-{digest[:12]}", "digest": digest, **fields, **changes})


def engine(digest: str = DIGEST) -> Engine:
    return Engine(
        name=f"chat-{digest[:12]}", spec="chat", digest=digest, lane="trt-engine", runtime="emulated",
        version="1.2.1", gpu_class="cpu", precision="bf16", url="/engines/chat", manifest_sha256="0" * 64,
        built_at=datetime(2030, 1, 1, tzinfo=UTC),
    )  # fmt: skip


async def claimed(builds: BuildStore, worker: str = "w", lease_s: float = LEASE_S) -> BuildClaim:
    claim = await eventually(lambda: builds.claim(worker, ABLE, lease_s))
    assert claim is not None
    return claim


async def ended_by_claiming(builds: BuildStore, build_id: str) -> EngineBuild:
    """The build, once a builder has looked for work after its claim lapsed, and got none."""

    async def look() -> EngineBuild | None:
        assert await builds.claim("other", ABLE, LEASE_S) is None
        build = await builds.get(build_id)
        return build if build.ended else None

    build = await eventually(look)
    assert build is not None
    return build


async def test_asking_twice_for_one_engine_joins_the_build_that_goes_on(builds: BuildStore) -> None:
    """Also while it runs; once it has ended, asking makes a new one."""
    first = await builds.ask(asked())
    assert (await builds.ask(asked())).id == first.id
    claim = await claimed(builds)
    assert (await builds.ask(asked())).id == first.id == claim.build.id
    other = await builds.ask(asked("cd" * 32))
    assert other.id != first.id
    await builds.finish(claim, "succeeded")
    assert (await builds.ask(asked())).id not in {first.id, other.id}


async def test_only_one_builder_wins_a_build(builds: BuildStore) -> None:
    await builds.ask(asked())
    found = await asyncio.gather(*(builds.claim(f"w{n}", ABLE, LEASE_S) for n in range(8)))
    assert len([claim for claim in found if claim is not None]) == 1


@pytest.mark.parametrize(
    ("able", "fits"),
    [
        (Able(("tensorrt-llm",), "h100-sxm", 4), True),
        (Able(("tensorrt-llm",), None, 8), True),
        (Able(("tensorrt-llm",), "h100-sxm", 2), False),
        (Able(("tensorrt-llm",), "l40s", 8), False),
        (Able(("emulated",), "h100-sxm", 8), False),
    ],
)
async def test_builders_take_what_they_can_do(builds: BuildStore, able: Able, fits: bool) -> None:
    """The runtime, the class of GPUs and how many; a build that fits nobody is no obstacle."""
    await builds.ask(asked(runtime="tensorrt-llm", gpu_class="h100-sxm", gpus=4))
    await builds.ask(asked("cd" * 32, runtime="tensorrt-llm"))
    taken = set()
    while (claim := await builds.claim("w", able, LEASE_S)) is not None:
        taken.add(claim.build.asked.digest)
    assert (DIGEST in taken) is fits


async def test_builds_that_nobody_can_do_do_not_hide_others(
    builds: BuildStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many wait in front."""
    monkeypatch.setattr("model_registry.build_jobs.store._AT_ONCE", 2)
    for number in range(5):
        await builds.ask(asked(f"{number:064x}", runtime="tensorrt-llm"))
    await builds.ask(asked())
    claim = await builds.claim("w", ABLE, LEASE_S)
    assert claim is not None
    assert claim.build.asked.digest == DIGEST


async def test_a_lapsed_claim_goes_to_another_builder_and_the_first_can_do_nothing(
    builds: BuildStore, store: RegistryStore
) -> None:
    """It neither renews, gives back nor ends the build, and stores no engine."""
    await builds.ask(asked())
    stale = await claimed(builds, "stale", SHORT_S)
    fresh = await claimed(builds, "fresh")
    assert (fresh.build.id, fresh.build.attempts) == (stale.build.id, 2)
    for refused in (
        builds.beat(stale, LEASE_S),
        builds.release(stale, counts=True),
        builds.finish(stale, "succeeded"),
        store.transact([engine()], held=stale),
    ):
        with pytest.raises(BuildClaimLostError):
            await refused
    assert await store.get("Engine", engine().name) is None
    await store.transact([engine()], held=fresh)
    assert await store.get("Engine", engine().name) == engine()


async def test_a_lapsed_claim_that_nobody_took_still_holds(builds: BuildStore) -> None:
    """A Redis that was away for a while costs no work."""
    await builds.ask(asked())
    claim = await claimed(builds, lease_s=0.001)
    assert await builds.beat(claim, LEASE_S)
    assert await builds.claim("other", ABLE, LEASE_S) is None


async def test_an_engine_cannot_be_stored_after_the_end(builds: BuildStore, store: RegistryStore) -> None:
    """Nor one of a build that was given back."""
    await builds.ask(asked())
    claim = await claimed(builds)
    await builds.release(claim, counts=False)
    with pytest.raises(BuildClaimLostError):
        await store.transact([engine()], held=claim)


async def test_attempts_are_bounded(builds: BuildStore) -> None:
    """Builders that die count, those that give back in order do not."""
    await builds.ask(asked())
    await builds.release(await claimed(builds), counts=False)
    for worker in ("a", "b"):
        claim = await claimed(builds, worker, SHORT_S)
    build = await ended_by_claiming(builds, claim.build.id)
    assert (build.state, build.attempts) == ("failed", 2)
    assert build.error is not None
    assert "went away" in build.error.message


async def test_a_build_that_may_go_elsewhere_waits_and_fails_in_the_end(builds: BuildStore) -> None:
    """Given back with a reason: it is shown, and its attempts count."""
    full = BuildError("no room", "make some")
    await builds.ask(asked())
    await builds.release(await claimed(builds), full, delay_s=60, counts=True)
    assert await builds.claim("w", ABLE, LEASE_S) is None  # not before its time
    build = (await builds.newest())[0]
    assert (build.state, build.error) == ("queued", full)


async def test_no_attempt_left_ends_a_build_with_its_reason(builds: BuildStore) -> None:
    full = BuildError("no room", "make some")
    await builds.ask(asked())
    for _ in range(2):
        await builds.release(await claimed(builds), full, counts=True)
    build = (await builds.newest())[0]
    assert (build.state, build.error) == ("failed", full)


async def test_a_waiting_build_is_cancelled_at_once_and_a_running_one_by_its_builder(
    builds: BuildStore,
) -> None:
    waiting = await builds.ask(asked())
    assert (await builds.cancel(waiting.id)).state == "cancelled"
    with pytest.raises(BuildOverError):
        await builds.cancel(waiting.id)
    await builds.ask(asked())
    claim = await claimed(builds)
    assert await builds.beat(claim, LEASE_S)
    assert (await builds.cancel(claim.build.id)).cancelling
    assert not await builds.beat(claim, LEASE_S)
    await builds.finish(claim, "cancelled")
    assert (await builds.get(claim.build.id)).state == "cancelled"


async def test_a_cancelled_build_whose_builder_died_is_not_taken_up_again(builds: BuildStore) -> None:
    await builds.ask(asked())
    claim = await claimed(builds, lease_s=SHORT_S)
    await builds.cancel(claim.build.id)
    assert (await ended_by_claiming(builds, claim.build.id)).state == "cancelled"


async def test_the_end_can_be_said_again(builds: BuildStore) -> None:
    """An answer that got lost is no reason to fear for the build; another end is refused."""
    await builds.ask(asked())
    claim = await claimed(builds)
    await builds.finish(claim, "succeeded")
    await builds.finish(claim, "succeeded")
    with pytest.raises(BuildClaimLostError):
        await builds.finish(claim, "failed", BuildError("x"))


async def test_others_read_progress_and_the_end_of_the_log(builds: BuildStore) -> None:
    """By pages; of a long log the end is kept."""
    build = await builds.ask(asked())
    claim = await claimed(builds)
    at = BuildProgress("compile", 2, 3, "running", 12.0, 4.0, 60.0)
    await builds.beat(claim, LEASE_S, at, [LogLine("compile", f"line {n}") for n in range(3)])
    assert (await builds.get(build.id)).progress == at
    page = await builds.log(build.id, limit=2)
    assert [line.text for line in page.lines] == ["line 0", "line 1"]
    page = await builds.log(build.id, page.after)
    assert page.lines == [LogLine("compile", "line 2")]
    assert (await builds.log(build.id, page.after)).lines == []
    for _ in range(8):
        await builds.beat(claim, LEASE_S, None, [LogLine("compile", str(n)) for n in range(500)])
    kept = await builds.log(build.id, limit=10_000)
    assert LOG_LINES <= len(kept.lines) <= LOG_LINES + 200
    assert kept.lines[-1].text == "499"


async def test_ended_builds_are_forgotten_when_their_time_is_over(
    redis_client: Redis, config: RegistryConfig
) -> None:
    """With their logs; and nothing of them is left in Redis."""
    builds = BuildStore.of(redis_client, config, Terms(retention_s=SHORT_S))
    build = await builds.ask(asked())
    claim = await claimed(builds)
    await builds.beat(claim, LEASE_S, None, [LogLine("a", "b")])
    assert await builds.forget_ended() == 0
    await builds.finish(claim, "succeeded")
    assert await eventually(builds.forget_ended) == 1
    with pytest.raises(UnknownBuildError):
        await builds.get(build.id)
    assert await redis_client.keys("*") == []


async def test_every_key_is_catalogued(
    builds: BuildStore, redis_client: Redis, config: RegistryConfig
) -> None:
    """With its type; on Cluster they share the slot of the registry's."""
    await builds.ask(asked())
    await builds.finish(await claimed(builds), "succeeded")
    await builds.ask(asked())
    await builds.beat(await claimed(builds), LEASE_S, None, [LogLine("a", "b")])
    await builds.present("w", Able(("emulated",)))
    found = {str(key): str(await redis_client.type(key)) for key in await redis_client.keys("*")}
    prefix = RegistryKeys(config.name).of("")
    rows = {row.suffix.partition(":")[0]: row.type for row in CATALOGUE}
    assert {key.removeprefix(prefix).partition(":")[0]: kind for key, kind in found.items()} == rows
    assert set(found) >= {Keys(config.name).all, Keys(config.name).open}


@pytest.mark.parametrize("present", BUILD_STATES)
async def test_scripts_go_by_the_table_of_states(redis_client: Redis, present: str) -> None:
    """Each pair of states, through the scripts' own `move`."""
    moves = source("ask").split("-- Makes a build")[0] + "\nmove(ARGV[1], 0)\nreturn build('state')"
    keys = [f"{{x}}{n}" for n in range(6)]
    for following in BUILD_STATES:
        await redis_client.hset(keys[0], "state", present)
        if following in BUILD[present]:  # type: ignore[index]
            assert await redis_client.eval(moves, len(keys), *keys, following) == following
        else:
            with pytest.raises(ResponseError, match=f"cannot go from {present} to {following}"):
                await redis_client.eval(moves, len(keys), *keys, following)
