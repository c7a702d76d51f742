"""What is believed of endpoints' adapters, and who sends one: decisions without a server."""

from __future__ import annotations

import asyncio

import pytest

from model_registry.entities import Endpoint
from router.placement import MAX_PER_ENDPOINT, Placement

ENDPOINT = Endpoint(
    name="e",
    deployment="d",
    model="m",
    profile="balanced",
    lane="tensorrt_llm",
    target="t",
    http="http://127.0.0.1:1",
    grpc="127.0.0.1:2",
    state="ready",
)


async def place(placement: Placement, task_id: int) -> None:
    with await placement.turn(ENDPOINT, task_id) as turn:
        turn.accepted(task_id)


async def test_the_first_sends_and_who_waits_need_not() -> None:
    placement = Placement()
    with await placement.turn(ENDPOINT, 1) as first:
        waiting = asyncio.create_task(placement.turn(ENDPOINT, 1))
        await asyncio.sleep(0)
        assert first.sends
        assert not waiting.done()
        first.accepted(1)
        assert not (await waiting).sends
    assert placement.holds("e", 1)


async def test_when_the_sender_fails_the_next_one_sends() -> None:
    placement = Placement()
    with await placement.turn(ENDPOINT, 1):
        waiting = [asyncio.create_task(placement.turn(ENDPOINT, 1)) for _ in range(3)]
        await asyncio.sleep(0)
    done, others = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    with done.pop().result() as second:
        assert second.sends
        second.accepted(1)
    assert [turn.sends for turn in await asyncio.gather(*others)] == [False, False]


async def test_other_adapters_do_not_wait() -> None:
    placement = Placement()
    with await placement.turn(ENDPOINT, 1), await placement.turn(ENDPOINT, 2) as other:
        assert other.sends


async def test_who_has_waited_long_enough_asks_without_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy engine took the weights long ago, but says so only with its first token."""
    monkeypatch.setattr("router.placement.WAIT_S", 0.01)
    placement = Placement()
    with await placement.turn(ENDPOINT, 1):
        assert not (await placement.turn(ENDPOINT, 1)).sends
        assert (await placement.turn(ENDPOINT, 1, insist=True)).sends


async def test_an_eviction_is_believed_unless_the_weights_came_again_meanwhile() -> None:
    placement = Placement()
    await place(placement, 1)
    with await placement.turn(ENDPOINT, 1) as early, await placement.turn(ENDPOINT, 1) as late:
        early.missed()
        assert not placement.holds("e", 1)
        await place(placement, 1)
        late.missed()
        assert placement.holds("e", 1)


async def test_an_eviction_while_the_sender_still_streams_makes_the_next_one_send() -> None:
    placement = Placement()
    with await placement.turn(ENDPOINT, 1) as sender:
        sender.accepted(1)
        (await placement.turn(ENDPOINT, 1)).missed()
        assert (await placement.turn(ENDPOINT, 1)).sends


@pytest.mark.parametrize("change", [{"state": "unhealthy"}, {"http": "http://127.0.0.1:9"}, {"target": "u"}])
async def test_an_endpoint_that_changes_is_believed_to_hold_nothing(change: dict[str, str]) -> None:
    placement = Placement()
    await place(placement, 1)
    placement.retain([ENDPOINT.model_copy(update={"reason": "said so"})])
    assert placement.holds("e", 1)
    placement.retain([ENDPOINT.model_copy(update=change)])
    assert not placement.holds("e", 1)
    await place(placement, 1)
    placement.forget("e")
    placement.forget("nobody")
    assert not placement.holds("e", 1)


async def test_beliefs_are_bounded_and_the_least_used_goes_first() -> None:
    placement = Placement()
    for task_id in range(MAX_PER_ENDPOINT):
        await place(placement, task_id)
    with await placement.turn(ENDPOINT, 0) as used:
        assert not used.sends
    await place(placement, MAX_PER_ENDPOINT)
    assert placement.holds("e", 0)
    assert not placement.holds("e", 1)
