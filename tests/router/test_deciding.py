"""What decisions go by: the ledger's figures, and what is learned from each attempt."""

from __future__ import annotations

from contextlib import suppress

import pytest

from inference.kv_events import Created, KvEvent, Removed, Stored, StoredBlock, Token
from inference.request import InferenceRequest, Lora, Usage
from model_registry.entities import Endpoint
from model_registry.knobs import Knobs, knobs_of
from router.config import RouterConfig
from router.deciding import Deciding
from router.forecast import Forecast, Seed
from router.ledger import REPORT_TTL_S, Charge, Ledger, Reported
from router.pick import ADAPTER_TOKENS, pick
from router.policies import make
from router.view import EndpointView
from tests.router.test_forecast import CARD

MODEL = "m"


def endpoint(name: str, block: int | None = 16, state: str = "ready") -> Endpoint:
    return Endpoint(
        name=name,
        deployment=name,
        model=MODEL,
        profile="balanced",
        lane="tensorrt_llm",
        target="t",
        http="http://127.0.0.1:1",
        max_concurrency=8,
        state=state,
        server_schema={"tokens_per_block": block},
    )


A, B = endpoint("a"), endpoint("b")


def prompt(ids: list[int], lora: Lora | None = None) -> InferenceRequest:
    return InferenceRequest("r", MODEL, True, 100, prompt_ids=ids, lora=lora)


class House:
    """One gateway's deciding over two endpoints, with a clock that is set by hand."""

    def __init__(self) -> None:
        self.deciding = Deciding(RouterConfig())
        self.policy = self.deciding.policy(MODEL, "balanced", knobs_of("balanced"))

    def views(self, request: InferenceRequest, now_s: float, tenant: str = "t") -> dict[str, EndpointView]:
        ask = self.deciding.ask(request, 200, tenant, [A, B])
        choices = self.deciding.candidates(MODEL, [A, B], None, ask, now_s)
        return {choice.endpoint.name: choice.view for choice in choices}

    def send(self, request: InferenceRequest, to: Endpoint, now_s: float, tenant: str = "t"):  # type: ignore[no-untyped-def]
        ask = self.deciding.ask(request, 200, tenant, [A, B])
        return self.deciding.dispatch(MODEL, to, ask, self.policy, now_s)


def test_the_ledger_gives_back_whatever_happens() -> None:
    """A failure inside the scope leaves nothing charged, before a first token and after."""
    ledger, forecast = Ledger(), Forecast()
    for first in (False, True):
        lease = ledger.lease("a", Charge(100, 300, 50))
        with suppress(ValueError), lease:
            if first:
                lease.first_token(1.0)
                lease.first_token(2.0)
            view = ledger.view(A, forecast, 1.0)
            held = (0, 300) if first else (100, 0)
            assert (view.requests, view.prefill_tokens, view.decode_tokens) == (1, *held)
            raise ValueError
        lease.first_token(3.0)
        view = ledger.view(A, forecast, 9.0)
        assert (view.requests, view.prefill_tokens, view.decode_tokens) == (0, 0, 0)
    view = ledger.view(B, forecast, 9.0, 5, 7)
    known = {"prefill_tokens_per_s": forecast.prefill_tokens_per_s, "step_s": forecast.step_s(0)}
    assert view == EndpointView("b", 8, cached_tokens=5, surcharge_tokens=7, **known)
    ledger.retain({"b"})
    assert set(ledger.loads()) == {"b"}


def test_what_decodes_grows_by_the_forecast_until_it_is_whole() -> None:
    """Two streams of a token every 10 ms, one of which is a second older."""
    ledger, forecast = Ledger(), Forecast(Seed(step_s=0.01, step_per_request_s=0.0))
    first, second = ledger.lease("a", Charge(1, 1000, 500)), ledger.lease("a", Charge(1, 2000, 500))
    with first, second:
        first.first_token(10.0)
        assert ledger.view(A, forecast, 11.0).decode_tokens == pytest.approx(1100, abs=1)
        second.first_token(11.0)
        assert ledger.view(A, forecast, 12.0).decode_tokens == pytest.approx(3300, abs=1)
        assert ledger.view(A, forecast, 99.0).decode_tokens == 4000


def test_what_other_gateways_report_counts_until_it_is_old() -> None:
    """Each gateway's last report alone, with the age of the oldest; own requests have none."""
    here, there, forecast = Ledger(), Ledger(), Forecast()
    with there.lease("a", Charge(500)), here.lease("a", Charge(50)):
        here.learn("two", {"a": Reported(9, 9, 9, 0.0)})
        here.learn("two", there.report({}, 10.0))
        view = here.view(A, forecast, 11.0)
        assert (view.requests, view.prefill_tokens, view.age_s) == (2, 550, 1.0)
        assert here.view(A, forecast, 10.1 + REPORT_TTL_S).requests == 1
        assert here.report({}, 11.0)["a"].requests == 1, "what others said is not said again"
        here.learn("two", {})
        assert here.view(A, forecast, 11.0).requests == 1


def test_a_prompt_is_cheaper_where_its_beginning_went() -> None:
    """To whole blocks, for the same tenant and adapter only; the charge is what must be computed."""
    house, chat = House(), list(range(100))
    assert house.send(prompt(chat), A, 0.0).charge == Charge(100, 100, 100, 0.0)
    longer = prompt([*chat, *range(60)])
    assert {name: view.cached_tokens for name, view in house.views(longer, 1.0).items()} == {"a": 96, "b": 0}
    assert house.views(longer, 1.0, "other")["a"].cached_tokens == 0
    assert house.views(prompt(chat, Lora(7, "pirate")), 1.0)["a"].cached_tokens == 0
    assert house.send(longer, A, 1.0).charge == Charge(64, 160, 40, 1.0)
    ask = house.deciding.ask(longer, 200, "t", [A, B])
    choices = house.deciding.candidates(MODEL, [A, B], None, ask, 2.0)
    knobs = knobs_of("balanced")
    assert pick("balanced", knobs, house.policy, ask, choices, set(), 2.0).endpoint == A


def test_an_engines_report_corrects_what_was_believed() -> None:
    house, chat = House(), prompt(list(range(160)))
    house.send(prompt(list(range(1000, 1160))), A, 0.0)
    house.send(chat, A, 1.0)
    sent = house.send(chat, A, 100.0)
    assert sent.charge.uncached == 1
    house.deciding.answered(MODEL, "a", sent, Usage(160, 11, 0), 100.5, 101.5)
    assert house.views(prompt(list(range(1000, 1160))), 102.0)["a"].cached_tokens == 0
    assert house.views(chat, 102.0)["a"].cached_tokens == 160
    assert house.deciding.forecasts.of("a").itl_age_s(102.0) == 0.5


def test_an_unreachable_endpoint_has_nothing_cached() -> None:
    house, chat = House(), prompt(list(range(160)))
    for one in (A, B):
        house.send(chat, one, 0.0)
    house.deciding.unreachable(MODEL, "a")
    assert [view.cached_tokens for view in house.views(chat, 1.0).values()] == [0, 160]
    house.deciding.retain([A])
    assert house.views(chat, 1.0)["b"].cached_tokens == 0


def test_an_adapter_that_would_have_to_be_sent_is_a_surcharge() -> None:
    house = House()
    ask = house.deciding.ask(prompt([1] * 10), 20, "t", [A, B])
    choices = house.deciding.candidates(MODEL, [A, B], None, ask, 0.0, lambda name: name == "a")
    assert [choice.view.surcharge_tokens for choice in choices] == [ADAPTER_TOKENS, 0]
    assert not house.deciding.candidates(MODEL, [A, B], frozenset({"llmapi"}), ask, 0.0)


def test_a_policy_keeps_its_memory_until_its_knobs_name_another() -> None:
    deciding = Deciding(RouterConfig())
    kept = deciding.policy(MODEL, "night", Knobs(policy="sticky"))
    assert deciding.policy(MODEL, "night", Knobs(policy="sticky", queue_limit=7)) is kept
    assert deciding.policy(MODEL, "night", Knobs(policy="sticky", policy_options={"match": 0.5})) is not kept
    unknown = deciding.policy(MODEL, "night", Knobs(policy="stikcy"))
    assert type(unknown) is type(make(Knobs().policy)), "the default stands in for it"


def test_the_block_is_the_engines_or_a_common_one() -> None:
    deciding = Deciding(RouterConfig())
    asked = deciding.ask(prompt([1] * 256), 300, "t", [endpoint("a", 32), endpoint("b", 128)])
    assert len(asked.blocks) == 2
    deciding.retain([])
    assert len(deciding.ask(prompt([1] * 256), 300, "t", [endpoint("a", None)]).blocks) == 4
    body = InferenceRequest("r", MODEL, True, 100, body={})
    assert deciding.ask(body, 300, "t", [A])[:3] == (300, 0, ())


def test_a_snapshot_brings_cards_to_forecasts() -> None:
    """Whether a decision or the registry's news comes first; a decision in between goes by the new card."""
    house, ask = House(), prompt([1] * 10)
    first = A.model_copy(update={"card": CARD})
    house.views(ask, 0.0)
    house.deciding.retain([first, B])
    asked = house.deciding.ask(ask, 200, "t", [first, B])

    def pace(endpoints: list[Endpoint]) -> list[float]:
        choices = house.deciding.candidates(MODEL, endpoints, None, asked, 1.0)
        return [round(choice.view.prefill_tokens_per_s) for choice in choices]

    assert pace([first, B]) == [50_000, 20_000]
    changed = first.model_copy(update={"card": CARD.model_copy(update={"prefill_tokens_per_s": 9_000})})
    assert pace([changed, B]) == [9_000, 20_000]


class Published:
    """An engine that tells what its cache has, and a deciding that hears it."""

    def __init__(self) -> None:
        self.house = House()
        self.endpoint = A.model_copy(update={"kv_events": "trtllm-serve", "http": "http://told:1"})
        self.feed = self.house.deciding.kv_feeds.open(self.endpoint, [self.endpoint])
        self._next_id = 0

    def tells(self, *told: Created | Stored | Removed, now_s: float) -> None:
        events = [KvEvent(self._next_id + n, data, 4096) for n, data in enumerate(told)]
        self._next_id += len(told)
        self.feed.blocks.read(events)
        self.feed.heard(now_s)

    def cached(self, request: InferenceRequest, now_s: float, tenant: str = "") -> int:
        ask = self.house.deciding.ask(request, 200, tenant, [self.endpoint])
        (choice,) = self.house.deciding.candidates(MODEL, [self.endpoint], None, ask, now_s)
        return choice.view.cached_tokens


def stored(ids: list[int], name: int) -> Stored:
    return Stored(None, [StoredBlock(name, [Token(token) for token in ids])])


def test_what_an_engine_tells_counts_beside_what_was_just_sent() -> None:
    """A dispatch is believed for some seconds; then the engine would have said that its prompt is there."""
    engine, ids, other = Published(), list(range(64)), list(range(500, 564))
    engine.tells(Created(), stored(ids[:16], 1), now_s=0.0)
    assert engine.cached(prompt(ids), 0.0) == 16
    engine.house.send(prompt(other), engine.endpoint, 0.0, tenant="")
    assert engine.cached(prompt(other), 5.0) == 64
    engine.tells(now_s=15.0)
    assert engine.cached(prompt(other), 15.0) == 0
    engine.tells(Removed([1]), now_s=15.5)
    assert engine.cached(prompt(ids), 16.0) == 0


def test_an_engine_that_has_gone_quiet_or_was_not_heard_whole_is_believed_less() -> None:
    """What was sent there then counts for as long as elsewhere, beside what was told."""
    engine, ids, other = Published(), list(range(64)), list(range(500, 564))
    engine.tells(Created(), stored(ids, 1), now_s=0.0)
    engine.house.send(prompt(other), engine.endpoint, 1.0, tenant="")
    assert engine.cached(prompt(other), 100.0) == 64
    engine._next_id += 1
    engine.tells(stored(ids[:16], 2), now_s=101.0)
    assert engine.cached(prompt(other), 102.0) == 64
    assert engine.cached(prompt(ids), 102.0) == 16


def test_adapters_and_tenants_caches_are_not_what_engines_tell_of() -> None:
    engine, ids = Published(), list(range(64))
    engine.tells(Created(), stored(ids, 1), now_s=0.0)
    assert engine.cached(prompt(ids), 0.0) == 64
    assert engine.cached(prompt(ids), 0.0, tenant="t") == 0
    assert engine.cached(prompt(ids, Lora(7, "x")), 0.0) == 0


def test_a_dispatch_is_charged_what_the_engine_has_not() -> None:
    engine, ids = Published(), list(range(64))
    engine.house.send(prompt(ids), engine.endpoint, 0.0, tenant="")
    engine.tells(Created(), stored(ids[:16], 1), now_s=60.0)
    sent = engine.house.send(prompt(ids), engine.endpoint, 60.0, tenant="")
    assert sent.charge.uncached == 48
