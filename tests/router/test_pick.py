"""Filter, score, pick; profiles and breakers: pure decisions."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_registry.entities import Adapter, Deployment, Endpoint, Model, ServerRef
from model_registry.snapshot import Snapshot
from router.breaker import CLOSED
from router.config import RouterConfig
from router.errors import UnknownModelError
from router.ledger import Ledger
from router.pick import ADAPTER_TOKENS, Candidate, candidates, pick
from router.profiles import resolve, stand_ins

CONFIG = RouterConfig(breaker_failures=2, breaker_cooldown_s=5)


def endpoint(name: str, profile: str = "balanced", state: str = "ready", slots: int = 8) -> Endpoint:
    return Endpoint(
        name=name,
        deployment=name,
        model="m",
        profile=profile,
        lane="tensorrt_llm",
        target="tensorrt_llm",
        http="http://127.0.0.1:1",
        max_concurrency=slots,
        state=state,
    )


def first(endpoints: Sequence[Endpoint]) -> Endpoint:
    return endpoints[0]


def snapshot() -> Snapshot:
    server = ServerRef(http="http://127.0.0.1:1")
    return Snapshot.of(
        1,
        [
            Model(name="chat", context_length=100, aliases=("gpt",), default_profile="latency"),
            Model(name="org/other", context_length=100),
            Deployment(name="d1", model="chat", profile="latency", servers=(server,)),
            Deployment(name="d2", model="chat", profile="night", servers=(server,)),
        ],
    )


def adapted() -> Snapshot:
    known = [*snapshot().objects(), Adapter(name="pirate", model="chat", aliases=("buccaneer",))]
    return Snapshot.of(1, known)


@pytest.mark.parametrize(
    ("name", "profile"),
    [
        ("chat+pirate", "latency"),
        ("gpt+pirate", "latency"),
        ("buccaneer", "latency"),
        ("chat+pirate:throughput", "throughput"),
        ("buccaneer:night", "night"),
    ],
)
def test_an_adapter_is_named_by_its_base_or_by_its_alias(name: str, profile: str) -> None:
    wish = resolve(adapted(), name, None, None)
    assert (wish.name, wish.model.name, wish.profile) == ("chat+pirate", "chat", profile)
    assert wish.adapter is not None
    assert resolve(adapted(), "chat", None, None).adapter is None


@pytest.mark.parametrize(
    "name", ["pirate", "org/other+pirate", "chat+", "+pirate", "chat+pirate+pirate", "chat:latency+pirate"]
)
def test_an_adapter_goes_by_no_other_name(name: str) -> None:
    with pytest.raises(UnknownModelError):
        resolve(adapted(), name, None, None)
    with pytest.raises(UnknownModelError, match=r"Did you mean 'chat\+pirate'"):
        resolve(adapted(), "chat+pirat", None, None)


def test_an_adapter_in_place_outweighs_some_load_but_not_all() -> None:
    """Sending it costs something; so does waiting."""
    here, there = endpoint("here"), endpoint("there")
    for load, expected in ((0, here), (ADAPTER_TOKENS - 1, here), (ADAPTER_TOKENS + 1, there)):
        choices = [Candidate(here, load, True), Candidate(there, 0, True, lacks_adapter=True)]
        assert pick("balanced", choices, 10, set()).endpoint is expected


def test_least_tokens_per_slot_wins() -> None:
    """A request of many tokens counts for more than several small ones; bigger endpoints take more."""
    small, big = endpoint("small", slots=4), endpoint("big", slots=16)
    choices = [Candidate(small, 300, True), Candidate(big, 800, True)]
    decision = pick("balanced", choices, 10, set())
    assert decision.endpoint is big
    assert set(decision.scores) == {"small", "big"}


def test_ties_are_broken_by_the_coin() -> None:
    """Equal loads do not always go to the first endpoint."""
    choices = [Candidate(endpoint(name), 0, True) for name in ("a", "b")]
    seen = {pick("balanced", choices, 1, set()).endpoint.name for _ in range(64)}  # type: ignore[union-attr]
    assert seen == {"a", "b"}


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["latency", "balanced", "throughput", "night"]),
            st.sampled_from(["ready", "starting", "draining", "unhealthy"]),
            st.integers(0, 5000),
            st.booleans(),
            st.booleans(),
        ),
        max_size=8,
    ),
    st.sampled_from(["latency", "balanced", "throughput", "night"]),
)
def test_only_admissible_endpoints_are_picked_and_always_when_there_is_one(
    rows: list[tuple[str, str, int, bool, bool]], profile: str
) -> None:
    """Never an endpoint that is not ready, was tried, or is kept away; never none while one is left."""
    choices = [
        Candidate(endpoint(str(i), p, s), tokens, admits) for i, (p, s, tokens, admits, _) in enumerate(rows)
    ]
    excluded = {str(i) for i, row in enumerate(rows) if row[4]}
    open_ones = {
        c.endpoint.name
        for c in choices
        if c.endpoint.state == "ready" and c.breaker_admits and c.endpoint.name not in excluded
    }
    decision = pick(profile, choices, 1, excluded, first)
    assert (decision.endpoint is None) == (not open_ones)
    if decision.endpoint is not None:
        assert decision.endpoint.name in open_ones
        wanted = [c for c in choices if c.endpoint.name in open_ones and c.endpoint.profile == profile]
        assert not wanted or decision.endpoint.profile == profile


def test_a_stand_in_profile_serves_while_the_wanted_one_is_away() -> None:
    """The wanted profile wins while it can serve at all; the reason says when another stood in."""
    wanted, other = endpoint("w", "latency"), endpoint("o", "throughput")
    busy = [Candidate(wanted, 10**6, True), Candidate(other, 0, True)]
    assert pick("latency", busy, 1, set()).endpoint is wanted
    down = [Candidate(wanted, 0, False), Candidate(other, 0, True)]
    decision = pick("latency", down, 1, set())
    assert (decision.endpoint, decision.reason) == (other, "stand_in:throughput")


def test_the_reason_says_why_there_is_none() -> None:
    """An operator learns whether nothing is registered, ready, or let through."""
    assert pick("latency", [], 1, set()).reason == "no_endpoint_registered"
    assert (
        pick("latency", [Candidate(endpoint("a", state="starting"), 0, True)], 1, set()).reason
        == "none_ready"
    )
    assert pick("latency", [Candidate(endpoint("a"), 0, True)], 1, {"a"}).reason == "all_tried"
    assert pick("latency", [Candidate(endpoint("a"), 0, False)], 1, set()).reason == "breakers_open"


@pytest.mark.parametrize(
    ("name", "tier", "header", "profile"),
    [
        ("chat", None, None, "latency"),
        ("chat", "auto", None, "latency"),
        ("chat", "priority", None, "latency"),
        ("chat", "flex", None, "throughput"),
        ("chat", "flex", "night", "night"),
        ("chat:throughput", "priority", "night", "throughput"),
        ("gpt:night", None, None, "night"),
    ],
)
def test_suffix_beats_header_beats_tier(
    name: str, tier: str | None, header: str | None, profile: str
) -> None:
    """The most explicit wish wins."""
    wish = resolve(snapshot(), name, tier, header)
    assert (wish.model.name, wish.profile) == ("chat", profile)


@pytest.mark.parametrize("name", ["chta", "chat:", "chat:nigth", ":latency", ""])
def test_an_unknown_model_or_profile_is_named_with_the_nearest(name: str) -> None:
    """The error helps to find the typing mistake."""
    with pytest.raises(UnknownModelError) as caught:
        resolve(snapshot(), name, None, None)
    assert repr(name) in str(caught.value)


def test_stand_ins_begin_with_the_wish_and_name_every_profile_once() -> None:
    """Custom profiles come last."""
    order = stand_ins("throughput", ["night", "latency"])
    assert order == ("throughput", "balanced", "latency", "night")
    assert stand_ins("night", ["night"])[0] == "night"


def test_a_breaker_opens_lets_counted_probes_through_and_closes() -> None:
    """After the cooldown some requests probe; enough successes close it, a failure opens it anew."""
    breaker = CLOSED.failed(0, CONFIG)
    assert breaker.admits(0, CONFIG)
    breaker = breaker.failed(1, CONFIG)
    assert breaker.state(1, CONFIG) == "open"
    assert not breaker.admits(5.9, CONFIG)
    probing = breaker
    for _ in range(CONFIG.breaker_probes):
        assert probing.admits(6.0, CONFIG)
        probing = probing.probed(6.0)
    assert not probing.admits(10.9, CONFIG)
    assert probing.admits(11.0, CONFIG), "probes without news must make way"
    assert probing.released().admits(6.0, CONFIG)
    assert probing.failed(6.5, CONFIG).state(7, CONFIG) == "open"
    for _ in range(CONFIG.breaker_successes - 1):
        probing = probing.succeeded(CONFIG)
        assert probing.state(7, CONFIG) == "half_open"
    assert probing.succeeded(CONFIG) == CLOSED


def test_the_ledger_gives_back_whatever_happens() -> None:
    """A failure inside the scope leaves nothing charged, and load shows in the next decision."""
    ledger = Ledger()
    a, b = endpoint("a"), endpoint("b")

    def fail() -> None:
        with ledger.lease("a", 100):
            assert ledger.in_flight() == 1
            assert pick("balanced", candidates([a, b], None, ledger, 0, CONFIG), 1, set()).endpoint is b
            raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        fail()
    assert (ledger.of("a").requests, ledger.of("a").tokens) == (0, 0)
    ledger.retain({"b"})
    assert set(ledger.loads()) == {"b"}
