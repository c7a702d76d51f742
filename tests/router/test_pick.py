"""Filter, score, pick; profiles and breakers: pure decisions."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_registry.entities import Adapter, Deployment, Endpoint, Model, ServerRef
from model_registry.knobs import Knobs, knobs_of
from model_registry.snapshot import Snapshot
from router.breaker import CLOSED
from router.config import RouterConfig
from router.errors import UnknownModelError
from router.pick import Candidate, Decision, pick
from router.policies import make
from router.profiles import resolve, stand_ins
from router.view import Ask, EndpointView

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


def choice(one: Endpoint, requests: int = 0, breaker_admits: bool = True, weight: float = 1.0) -> Candidate:
    view = EndpointView(one.name, one.max_concurrency, requests, weight=weight)
    return Candidate(one, view, one.profile, one.state == "ready", breaker_admits)


def picked(
    profile: str,
    choices: Sequence[Candidate],
    excluded: set[str] = frozenset(),  # type: ignore[assignment]
    policy: str = "least-requests",
    knobs: Knobs | None = None,
) -> Decision:
    return pick(profile, knobs or knobs_of(profile), make(policy), Ask(10, 10), choices, excluded, 0.0)


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


def test_the_policys_cheapest_wins_and_its_costs_are_kept() -> None:
    small, big = endpoint("small", slots=4), endpoint("big", slots=16)
    decision = picked("balanced", [choice(small, 3), choice(big, 8)])
    assert (decision.endpoint, decision.reason, decision.policy) == (big, "profile", "product")
    assert decision.scores == {"small": 0.75, "big": 0.5}
    assert decision.view is not None
    assert decision.view.name == "big"


def test_ties_are_broken_by_the_coin() -> None:
    """Equal loads do not always go to the first endpoint."""
    choices = [choice(endpoint(name)) for name in ("a", "b")]
    seen = {picked("balanced", choices).endpoint.name for _ in range(64)}  # type: ignore[union-attr]
    assert seen == {"a", "b"}


@pytest.mark.parametrize("policy", ["weighted", "product", "round-robin"])
def test_weight_0_takes_nothing_whatever_the_policy(policy: str) -> None:
    """Also where there is nothing else."""
    for names in ("a", "ab"):
        idle = [choice(endpoint(name), weight=0.0) for name in names]
        decision = picked("balanced", idle, policy=policy)
        assert (decision.endpoint, decision.reason) == (None, "weight_0")
        chosen = picked("balanced", [*idle, choice(endpoint("c"), 3)], policy=policy).endpoint
        assert chosen is not None
        assert chosen.name == "c"


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["latency", "balanced", "throughput", "night"]),
            st.sampled_from(["ready", "starting", "draining", "unhealthy"]),
            st.integers(0, 16),
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
        choice(endpoint(str(i), p, s), requests, admits) for i, (p, s, requests, admits, _) in enumerate(rows)
    ]
    excluded = {str(i) for i, row in enumerate(rows) if row[4]}
    open_ones = {
        c.endpoint.name
        for c in choices
        if c.endpoint.state == "ready" and c.breaker_admits and c.endpoint.name not in excluded
    }
    decision = picked(profile, choices, excluded)
    assert (decision.endpoint is None) == (not open_ones)
    if decision.endpoint is not None:
        assert decision.endpoint.name in open_ones
        wanted = [c for c in choices if c.endpoint.name in open_ones and c.endpoint.profile == profile]
        free = [c for c in wanted if c.view.requests < 8]
        spills = knobs_of(profile).spill_when_full
        assert not (free or (wanted and not spills)) or decision.endpoint.profile == profile


def test_a_stand_in_profile_serves_while_the_wanted_one_is_away() -> None:
    """The wanted profile wins while it can serve at all; the reason says when another stood in."""
    wanted, other = endpoint("w", "latency"), endpoint("o", "throughput")
    assert picked("latency", [choice(wanted, 7), choice(other)]).endpoint is wanted
    decision = picked("latency", [choice(wanted, 0, False), choice(other)])
    assert (decision.endpoint, decision.reason) == (other, "stand_in:throughput")


def test_a_full_profile_spills_where_its_knobs_say_so() -> None:
    """Into the first stand-in that has a slot; where none has, or it may not, it stays with its own."""
    own, next_one, last = endpoint("w", "latency"), endpoint("n"), endpoint("l", "throughput")
    spills, stays = Knobs(spills_to=("balanced", "throughput")), Knobs(spill_when_full=False)
    for loads, knobs, expected in (
        ((8, 0, 0), spills, next_one),
        ((8, 8, 0), spills, last),
        ((8, 8, 8), spills, own),
        ((8, 0, 0), stays, own),
        ((8, 0, 0), Knobs(spills_to=("throughput", "balanced")), last),
    ):
        choices = [choice(one, load) for one, load in zip((own, next_one, last), loads, strict=True)]
        assert picked("latency", choices, knobs=knobs).endpoint is expected


def test_the_reason_says_why_there_is_none() -> None:
    """An operator learns whether nothing is registered, ready, or let through."""
    assert picked("latency", []).reason == "no_endpoint_registered"
    assert picked("latency", [choice(endpoint("a", state="starting"))]).reason == "none_ready"
    assert picked("latency", [choice(endpoint("a"))], {"a"}).reason == "all_tried"
    assert picked("latency", [choice(endpoint("a"), 0, False)]).reason == "breakers_open"


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
