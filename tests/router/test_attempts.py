"""The attempt loop against real sockets: what moves on, what goes on elsewhere, and what ends."""

from __future__ import annotations

import asyncio

import pytest

from inference.errors import RequestRefusedError, StreamBrokenError
from router.breaker import Breaker
from router.errors import AttemptsExhaustedError, NoEndpointsError
from tests.router.two_engines import EXPECTED, Collected, Fleet, fleet

__all__ = ["fleet"]


async def test_the_least_loaded_endpoint_answers(fleet: Fleet) -> None:
    """One attempt, in order, nothing retried."""
    answer = Collected()
    finished = await fleet.run(answer)
    assert (answer.ids, finished.reason, finished.endpoint.name) == (EXPECTED, "length", "a")
    assert (finished.attempts, finished.continued, fleet.observed.retries) == (1, 0, 0)


@pytest.mark.parametrize("fault", ["busy", "drop"])
async def test_a_safe_failure_before_the_first_token_moves_on(fleet: Fleet, fault: str) -> None:
    """The client never learns of it."""
    fleet.a.faults = [fault]
    answer = Collected()
    finished = await fleet.run(answer)
    assert (answer.ids, finished.endpoint.name, finished.attempts) == (EXPECTED, "b", 2)
    assert fleet.observed.retries == 1


async def test_the_first_token_moves_the_charge_and_teaches_the_forecast(fleet: Fleet) -> None:
    """A stream that hangs after its first tokens weighs on decode alone, and is given back when cut."""
    fleet.a.faults = ["hang"]
    answer = Collected()
    load, forecast = fleet.router.ledger.of("a"), fleet.router.deciding.forecasts.of("a")
    running = asyncio.create_task(fleet.run(answer))
    async with asyncio.timeout(5):
        await answer.some.wait()
    assert (load.prefill_tokens, load.decoding, load.decode_prompt_tokens) == (0, 1, 1)
    assert forecast.ttft_age_s(asyncio.get_running_loop().time()) is not None
    running.cancel()
    await asyncio.wait([running])
    assert (load.requests, load.decoding, load.decode_prompt_tokens) == (0, 0, 0)


async def test_what_the_server_refuses_is_not_tried_elsewhere(fleet: Fleet) -> None:
    """The request itself is wrong, and would be wrong everywhere."""
    fleet.a.faults = ["refuse"]
    with pytest.raises(RequestRefusedError):
        await fleet.run(Collected())
    assert fleet.b.asked == []


async def test_a_broken_stream_goes_on_where_it_stopped(fleet: Fleet) -> None:
    """The other endpoint gets prompt and answer so far; the tokens are those of an unbroken answer."""
    fleet.a.faults = ["break"]
    answer = Collected()
    finished = await fleet.run(answer)
    assert answer.ids == EXPECTED
    assert (finished.endpoint.name, finished.attempts, finished.continued) == ("b", 2, 1)
    assert fleet.b.asked[0]["input_ids"] == [100, 101, 102]
    assert fleet.b.asked[0]["request_output_len"] == 4


async def test_a_stream_that_breaks_again_and_again_goes_on(fleet: Fleet) -> None:
    """Each time from where it was, back and forth."""
    fleet.a.faults = ["break", "break"]
    fleet.b.faults = ["break"]
    answer = Collected()
    finished = await fleet.run(answer, tokens=8)
    assert answer.ids == [100 + n for n in range(1, 9)]
    assert finished.continued == 3


async def test_an_error_within_a_stream_ends_its_call(fleet: Fleet) -> None:
    """The failed server may not push into the answer that another one goes on with."""
    fleet.a.faults = ["error"]
    answer = Collected()
    finished = await fleet.run(answer)
    assert (answer.ids, finished.endpoint.name) == (EXPECTED, "b")
    async with asyncio.timeout(5):
        await fleet.a.left.wait()


async def test_a_continuation_that_gets_nowhere_is_given_up(fleet: Fleet) -> None:
    """A full fleet is not asked again and again."""
    fleet.a.faults = ["break", *["busy"] * 9]
    fleet.b.faults = ["busy"] * 9
    with pytest.raises(AttemptsExhaustedError):
        await fleet.run(Collected())
    assert len(fleet.a.asked) + len(fleet.b.asked) == 1 + fleet.router.config.max_attempts


async def test_an_answer_whose_end_alone_is_lost_is_whole(fleet: Fleet) -> None:
    """All tokens are there: nothing is asked of another engine."""
    fleet.a.faults = ["break"]
    answer = Collected()
    finished = await fleet.run(answer, tokens=2)
    assert (answer.ids, finished.reason, fleet.b.asked) == ([101, 102], "length", [])


async def test_a_probe_that_is_being_answered_lets_others_in(fleet: Fleet) -> None:
    """However long its answer takes."""
    fleet.register(fleet.endpoints[0])
    fleet.router.ledger.of("a").breaker = Breaker(3, opened_at_s=0.0)
    fleet.a.faults = ["hang"]
    answer = Collected()
    probe = asyncio.create_task(fleet.run(answer))
    async with asyncio.timeout(5):
        await answer.some.wait()
    assert (await fleet.run(Collected())).endpoint.name == "a"
    probe.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probe


@pytest.mark.parametrize("fleet", [{"continue_streams": False}], indirect=True)
async def test_a_stream_that_may_not_be_continued_ends_broken(fleet: Fleet) -> None:
    """Never falsely clean."""
    fleet.a.faults = ["break"]
    with pytest.raises(StreamBrokenError):
        await fleet.run(Collected())
    assert fleet.b.asked == []


async def test_an_answer_nobody_has_seen_begins_anew(fleet: Fleet) -> None:
    """Not streamed: the second endpoint makes the whole of it."""
    fleet.a.faults = ["break"]
    answer = Collected(whole=True)
    finished = await fleet.run(answer)
    assert (answer.ids, finished.continued) == (EXPECTED, 0)
    assert fleet.b.asked[0]["input_ids"] == [100]


async def test_attempts_are_bounded(fleet: Fleet) -> None:
    """Then the last failure is told."""
    fleet.a.faults = ["drop"] * 9
    fleet.b.faults = ["drop"] * 9
    with pytest.raises(AttemptsExhaustedError) as caught:
        await fleet.run(Collected())
    assert caught.value.last.outcome == "unreachable"
    assert len(fleet.a.asked) + len(fleet.b.asked) == fleet.router.config.max_attempts


async def test_failures_open_the_breaker_and_keep_requests_away(fleet: Fleet) -> None:
    """After three in a row the endpoint is not asked; the others serve."""
    fleet.a.faults = ["drop"] * 3
    for _ in range(5):
        await fleet.run(Collected())
    assert len(fleet.a.asked) == 3
    now_s = asyncio.get_running_loop().time()
    assert fleet.router.ledger.of("a").breaker.state(now_s, fleet.router.config) == "open"


async def test_a_request_waits_for_an_endpoint_that_comes(fleet: Fleet) -> None:
    """No endpoint is ready: the request waits, and is served by the one that appears."""
    down = [endpoint.model_copy(update={"state": "unhealthy"}) for endpoint in fleet.endpoints]
    fleet.register(*down)
    answer = Collected()
    waiting = asyncio.create_task(fleet.run(answer))
    await asyncio.sleep(0)
    assert fleet.router.waiting["m"] == 1
    fleet.register(down[0], fleet.endpoints[1])
    assert (await waiting).endpoint.name == "b"
    assert fleet.router.waiting["m"] == 0


async def test_a_row_in_flight_is_charged_as_spare(fleet: Fleet) -> None:
    fleet.a.faults = ["hang"]
    answer = Collected()
    running = asyncio.create_task(fleet.run(answer, spare=lambda endpoint: endpoint.name == "a"))
    async with asyncio.timeout(5):
        await answer.some.wait()
    load = fleet.router.ledger.of("a")
    assert (load.requests, load.spare) == (1, 1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (load.requests, load.spare) == (0, 0)


async def test_without_any_endpoint_the_request_fails_in_time(fleet: Fleet) -> None:
    """The reason is told."""
    fleet.register()
    with pytest.raises(NoEndpointsError, match="no_endpoint_registered"):
        await fleet.run(Collected())


async def test_cancelling_reaches_the_engine(fleet: Fleet) -> None:
    """The server sees its caller leave; the lease is back at once; the breaker does not mind."""
    fleet.a.faults = ["hang"]
    answer = Collected()
    running = asyncio.create_task(fleet.run(answer))
    async with asyncio.timeout(5):
        await answer.some.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await fleet.a.left.wait()
    assert fleet.router.ledger.in_flight() == 0
    assert fleet.observed.outcomes == [("a", "cancelled")]
    assert fleet.router.ledger.of("a").breaker.failures == 0
