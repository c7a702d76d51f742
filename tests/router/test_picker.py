"""Which endpoints a request is sent to against real sockets: those that may serve it and can carry it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from inference.errors import UnsupportedFeatureError
from inference.request import Guide, InferenceRequest
from inference.schema import Tensor
from model_registry.entities import Endpoint
from router.errors import NoEndpointsError
from router.job import Job
from router.profiles import Wish
from tests.router.two_engines import END, EXPECTED, MODEL, SCHEMA, Collected, Fleet, fleet

__all__ = ["fleet"]


async def test_a_conversation_returns_to_where_its_beginning_was_computed(fleet: Fleet) -> None:
    """Though the other endpoint has less to do; another class's does not, nor a short one's."""
    fleet.router.ledger.of("b").prefill_tokens = 0
    beginning = list(range(200))

    async def served_by(ids: list[int], tenant: str) -> str:
        request = InferenceRequest("r", "m", True, 1, prompt_ids=ids, end_id=END)
        job = Job(request, Wish(MODEL, "balanced", "default"), len(ids) + 1, fleet.trace())
        job.isolation_class = tenant
        async with asyncio.timeout(5):
            return (await fleet.router.run(job, Collected())).endpoint.name

    home = await served_by(beginning, "t")
    fleet.router.ledger.of(home).requests += 1
    served = [await served_by([*beginning, 7, 8, 9], tenant) for tenant in ("t", "u")]
    fleet.router.ledger.of(home).requests -= 1
    assert (served[0], served[1] != home) == (home, True)


async def test_a_first_token_is_expected_after_what_is_ahead(fleet: Fleet) -> None:
    """At the soonest endpoint, or at the one that is asked for; alone, it would come sooner.

    0.03 s, and 2,000 tokens at 20,000/s, 3 % dearer by the 1,000 that stand before each in the mean.
    """
    request = InferenceRequest("r", "m", True, 1, prompt_ids=[1] * 2000, end_id=END)
    job = Job(request, Wish(MODEL, "balanced", "default"), 2001, fleet.trace())
    soonest, at_b = fleet.router.picker.expected(job), fleet.router.picker.expected(job, "b")
    assert soonest.ttft_s == soonest.isolated_s == at_b.isolated_s == pytest.approx(0.133, abs=0.0005)
    assert at_b.ttft_s == pytest.approx(50.133, abs=0.0005)
    fleet.register()
    assert fleet.router.picker.expected(job).ttft_s == float("inf")


async def test_what_runs_in_spare_capacity_goes_only_where_there_is_room(fleet: Fleet) -> None:
    """It is charged as such while it runs; without room it is not among those that wait."""
    held: list[tuple[int, int]] = []

    def only_b(endpoint: Endpoint) -> bool:
        load = fleet.router.ledger.of("b")
        held.append((load.requests, load.spare))
        return endpoint.name == "b"

    fleet.b.faults = ["break"]  # the rest of the answer is routed while nothing is charged
    fleet.a.faults = ["drop"]
    assert (await fleet.run(Collected(), spare=only_b)).endpoint.name == "b"
    assert (len(fleet.a.asked), held[0], fleet.router.ledger.of("b").spare) == (0, (0, 0), 0)
    waiting = asyncio.create_task(fleet.run(Collected(), spare=lambda _: False))
    await asyncio.sleep(0)
    assert fleet.router.waiting["m"] == 0
    with pytest.raises(NoEndpointsError):
        await waiting


GUIDED = {
    "guided_decoding": True,
    "inputs": {
        **SCHEMA.inputs,
        **{
            name: Tensor("BYTES", (-1, 1)) for name in ("guided_decoding_guide_type", "guided_decoding_guide")
        },
    },
}


def endpoints(fleet: Fleet, unguided: int, *, guided: bool) -> list[Endpoint]:
    """So many copies of a, which has no guided decoding, and b, which may have it."""
    a, b = fleet.endpoints
    schema = replace(SCHEMA, **GUIDED) if guided else SCHEMA  # type: ignore[arg-type]
    return [
        *(a.model_copy(update={"name": f"a{n}"}) for n in range(unguided)),
        b.model_copy(update={"server_schema": schema.as_dict()}),
    ]


async def test_what_one_endpoint_cannot_carry_another_one_does(fleet: Fleet) -> None:
    """However many have to be asked; nothing was sent to them, and no attempt is used up."""
    fleet.register(*endpoints(fleet, 5, guided=True))
    answer = Collected()
    finished = await fleet.run(answer, guide=Guide("json"))
    assert (answer.ids, finished.endpoint.name) == (EXPECTED, "b")
    assert fleet.a.asked == []
    assert fleet.b.asked[0]["guided_decoding_guide_type"] == "json"
    assert {outcome for name, outcome in fleet.observed.outcomes if name != "b"} == {"unsupported"}


async def test_what_no_endpoint_can_carry_is_refused_by_name(fleet: Fleet) -> None:
    fleet.register(*endpoints(fleet, 5, guided=False))
    with pytest.raises(UnsupportedFeatureError) as caught:
        await fleet.run(Collected(), guide=Guide("json"))
    assert caught.value.param == "response_format"
    assert fleet.a.asked == fleet.b.asked == []


async def test_one_that_stands_by_at_weight_0_is_not_waited_for(fleet: Fleet) -> None:
    """As a rollout's candidate before its turn: what the client asked for is at fault, and said at once."""
    *unguided, guided = endpoints(fleet, 1, guided=True)
    fleet.register(*unguided, guided.model_copy(update={"weight": 0.0}))
    with pytest.raises(UnsupportedFeatureError) as caught:
        await fleet.run(Collected(), guide=Guide("json"))
    assert caught.value.param == "response_format"


async def test_who_can_carry_it_is_waited_for(fleet: Fleet) -> None:
    """That it was busy makes no mistake of what the client asked for."""
    fleet.register(*endpoints(fleet, 1, guided=True))
    fleet.b.faults = ["busy"]
    fleet.router.ledger.of("b").prefill_tokens = 0
    fleet.router.ledger.of("a0").prefill_tokens = 10**6
    finished = await fleet.run(Collected(), guide=Guide("json"))
    assert (finished.endpoint.name, len(fleet.b.asked)) == ("b", 2)
    assert fleet.a.asked == []
