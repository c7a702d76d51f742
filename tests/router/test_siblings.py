"""Requests that begin alike, against real sockets: one goes first, and the others with its first token."""

from __future__ import annotations

import asyncio

import pytest

from model_registry.knobs import BUILT_IN, Knobs
from tests.router.patient_engines import Fleet, fleet

__all__ = ["fleet"]

PATIENT = {"balanced": Knobs(), "latency": BUILT_IN["latency"]}
OFF = {"balanced": Knobs(cohort_wait_ms=0.0)}
patient = pytest.mark.parametrize("fleet", [PATIENT], indirect=True)


async def settled() -> None:
    """Let what can go on without anybody's answer go on."""
    for _ in range(6):
        await asyncio.sleep(0.001)


@patient
async def test_siblings_go_together_with_the_first_ones_first_token(fleet: Fleet) -> None:
    engine = await fleet.engine(8)
    for _ in range(8):
        fleet.ask(5)
    await engine.until(1)
    await settled()
    assert engine.served == [5]
    engine.let(1)
    await engine.until(8)
    assert engine.most == 7, "the first one was answered before the others came, and they came together"


@patient
async def test_nobody_is_held_for_longer_than_the_knob_says(fleet: Fleet) -> None:
    engine = await fleet.engine(8)
    loop = asyncio.get_running_loop()
    for _ in range(4):
        fleet.ask(5)
    await engine.until(1)
    began_s = loop.time()
    await engine.until(4)
    assert 0.06 < loop.time() - began_s < 0.5


@patient
async def test_the_latency_profile_holds_nobody_and_unlike_prompts_are_not_held(fleet: Fleet) -> None:
    fast, calm = await fleet.engine(8, profile="latency"), await fleet.engine(8)
    for first_id in (5, 5, 5):
        fleet.ask(first_id, profile="latency")
    for first_id in (6, 7, 8):
        fleet.ask(first_id)
    await settled()
    assert (len(fast.served), len(calm.served)) == (3, 3)


@pytest.mark.parametrize("fleet", [OFF], indirect=True)
async def test_the_knob_switches_it_off(fleet: Fleet) -> None:
    engine = await fleet.engine(8)
    for _ in range(4):
        fleet.ask(5)
    await settled()
    assert len(engine.served) == 4


@patient
async def test_where_the_first_ones_client_leaves_another_is_the_first(fleet: Fleet) -> None:
    engine = await fleet.engine(8)
    tasks = [fleet.ask(5) for _ in range(4)]
    await engine.until(1)
    await settled()
    tasks[0].cancel()
    await engine.until(2)
    await settled()
    assert len(engine.served) == 2
    engine.let(1)
    await engine.until(4)


@patient
async def test_siblings_that_waited_for_room_are_held_too(fleet: Fleet) -> None:
    """Room for all of them at once lets one go; others that wait go past them."""
    engine = await fleet.engine(2)
    for first_id in (6, 7):
        fleet.ask(first_id)
    await engine.until(2)
    for first_id in (5, 5):
        fleet.ask(first_id, tenant="alike")
    fleet.ask(10, tenant="other")
    await fleet.waiting(3)
    engine.let(2)
    await engine.until(4)
    await settled()
    assert sorted(engine.served[2:]) == [5, 10]
    engine.let(2)
    await engine.until(5)
    assert engine.served[4:] == [5]
