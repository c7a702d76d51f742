"""When an endpoint is asked for an inference, how long it may take, and what is remembered of it."""

from __future__ import annotations

import datetime
from dataclasses import replace

import pytest

from controller.config import ControllerConfig
from controller.probing import Known, Probing, is_due, patience_s
from model_registry.cards import GoodputCard
from model_registry.demand.demand import Demand, EndpointDemand
from model_registry.entities import Endpoint

CONFIG = ControllerConfig(infer_probe_s=30, infer_probe_timeout_s=5)
ENDPOINT = Endpoint(
    name="d@a:1", deployment="d", model="m", profile="balanced", lane="tensorrt_llm", target="m",
    http="http://a:1", max_concurrency=8,
)  # fmt: skip
CALM, BUSY, FULL = EndpointDemand(), EndpointDemand(requests=3), EndpointDemand(requests=8)
GOOD = Known(good_s=100.0)


@pytest.mark.parametrize(
    ("now_s", "known", "seen", "serves", "due"),
    [
        (101.0, GOOD, CALM, False, True),  # it takes no requests yet
        (101.0, replace(GOOD, asked_s=100.0), CALM, False, False),  # nor may it, though it has answered
        (129.0, GOOD, CALM, True, False),
        (131.0, GOOD, CALM, True, True),
        (109.0, GOOD, BUSY, True, False),
        (111.0, GOOD, BUSY, True, True),
        (200.0, GOOD, FULL, True, False),  # a probe would only wait
        (101.0, replace(GOOD, suspect=True), CALM, True, True),
        (101.0, replace(GOOD, failed=1, asked_s=100.9), CALM, True, True),  # once more, at once
        (101.0, replace(GOOD, failed=2, asked_s=100.9), CALM, False, False),
        (106.0, replace(GOOD, failed=2, asked_s=100.9), FULL, False, True),
    ],
)
def test_when_one_is_asked(now_s: float, known: Known, seen: EndpointDemand, serves: bool, due: bool) -> None:
    assert is_due(now_s, known, seen, 8, serves, CONFIG) is due
    assert not is_due(now_s, known, seen, 8, serves, CONFIG.model_copy(update={"infer_probe_s": None}))


def test_prompts_that_wait_are_waited_for() -> None:
    card = GoodputCard(
        source="measured", gpu_class="x", date=datetime.date(2026, 1, 1), prefill_tokens_per_s=10_000,
        overhead_s=0.1, step_s=0.01, slots=8,
    )  # fmt: skip
    carded = ENDPOINT.model_copy(update={"card": card})
    waiting = EndpointDemand(prefill_tokens=20_000)
    assert patience_s(ENDPOINT, CALM, CONFIG) == 5
    assert patience_s(ENDPOINT, waiting, CONFIG) == 15
    assert patience_s(carded, waiting, CONFIG) == 7
    assert patience_s(ENDPOINT, EndpointDemand(prefill_tokens=10**7), CONFIG) == 120


class House:
    """A clock, what gateways say, and a server that answers or does not."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.seen = EndpointDemand()
        self.lies: str | None = None
        self.asked = 0
        self.probing = Probing(self._probe, CONFIG, self._gather, lambda: self.now_s)

    async def _probe(self, endpoint: Endpoint, embeds: bool, within_s: float) -> str | None:
        self.asked += 1
        return self.lies

    async def _gather(self) -> Demand:
        return Demand(at_s=self.now_s, age_s=0.1, endpoints={ENDPOINT.name: self.seen})

    async def look(self, after_s: float, *, serves: bool = True, endpoint: Endpoint = ENDPOINT) -> str | None:
        self.now_s += after_s
        await self.probing.hear([ENDPOINT.name])
        return await self.probing.why_not(endpoint, embeds=False, serves=serves)


async def test_where_gateways_see_answers_nobody_asks() -> None:
    house = House()
    for n in range(20):
        house.seen = EndpointDemand(ended=n // 10, first_tokens=n, failed=n // 3)
        assert await house.look(20) is None
    assert house.asked == 0


async def test_failures_without_answers_call_for_a_probe() -> None:
    house = House()
    await house.look(0)
    house.seen = EndpointDemand(failed=1)
    await house.look(1)
    assert house.asked == 1
    await house.look(1)
    assert house.asked == 1


async def test_one_that_lies_stays_out_until_a_probe_works() -> None:
    house = House()
    house.lies = "it hangs"
    assert await house.look(31) is None  # since it is known
    assert await house.look(31) == "it hangs"
    house.seen = EndpointDemand(ended=1)
    assert await house.look(1) == "it hangs"
    assert [await house.look(1, serves=False) for _ in range(4)] == ["it hangs"] * 4
    asked, house.lies = house.asked, None
    assert await house.look(5, serves=False) is None
    assert house.asked == asked + 1


async def test_somebody_elses_service_is_never_asked() -> None:
    house = House()
    rented = ENDPOINT.model_copy(update={"api_key_env": "KEY"})
    for serves in (False, True):
        assert await house.look(100, serves=serves, endpoint=rented) is None
    assert house.asked == 0
