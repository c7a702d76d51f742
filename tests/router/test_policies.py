"""Routing policies: each does what its rule says, and the catalogue finds them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint
from math import inf
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from model_registry.knobs import Knobs
from router.policies import GROUP, PolicyError, make, names
from router.policies.catalogue import OWN
from router.policies.options import Option
from router.view import Ask, EndpointView, Policy

ASK = Ask(1000, 100, (11, 12, 13), "t", "s")


def best(policy: Policy, views: Sequence[EndpointView], ask: Ask = ASK, now_s: float = 0.0) -> str:
    """The cheapest, which is told that it was chosen."""
    costs = policy.costs(ask, views, now_s)
    view = views[min(range(len(views)), key=costs.__getitem__)]
    policy.chosen(ask, view, now_s)
    return view.name


def a(**known: float) -> EndpointView:
    return replace(EndpointView("a", 8), **known)  # type: ignore[arg-type]


def b(**known: float) -> EndpointView:
    return replace(EndpointView("b", 8), **known)  # type: ignore[arg-type]


VIEW = st.builds(
    EndpointView,
    name=st.just(""),
    slots=st.integers(1, 256),
    requests=st.integers(0, 512),
    prefill_tokens=st.integers(0, 10**6),
    decode_tokens=st.integers(0, 10**6),
    cached_tokens=st.integers(0, 2000),
    weight=st.floats(0.1, 10),
    prefill_tokens_per_s=st.floats(1, 1e6),
    step_s=st.floats(0, 1),
    surcharge_tokens=st.integers(0, 1000),
    age_s=st.just(0.0),
)


@pytest.mark.parametrize("name", names(()))
@settings(max_examples=30)
@given(views=st.lists(VIEW, min_size=1, max_size=9), ask=st.sampled_from([ASK, Ask(1, 1)]))
def test_every_policy_rates_every_view_and_takes_one_of_them(
    name: str, views: list[EndpointView], ask: Ask
) -> None:
    """Wherever there are endpoints of some weight, one may be taken; no cost is NaN."""
    views = [replace(view, name=str(place)) for place, view in enumerate(views)]
    policy = make(name)
    for now_s in (0.0, 1.0):
        costs = policy.costs(ask, views, now_s)
        assert len(costs) == len(views)
        assert all(cost == cost for cost in costs)
        assert min(costs) < inf
        policy.chosen(ask, views[0], now_s)


def test_round_robin_takes_turns_and_lets_new_endpoints_in_at_once() -> None:
    policy, views = make("round-robin"), [a(), b()]
    turns = [best(policy, views) for _ in range(4)]
    assert turns in (["a", "b"] * 2, ["b", "a"] * 2)
    assert best(policy, [*views, EndpointView("c", 8)]) == "c"


def test_least_requests_counts_slots() -> None:
    assert best(make("least-requests"), [a(requests=4), b(requests=5, slots=16)]) == "b"


def test_least_tokens_counts_uncached_ones() -> None:
    """500 more in flight are outweighed by 900 that are cached."""
    assert best(make("least-tokens"), [a(prefill_tokens=500, cached_tokens=900), b()]) == "a"
    assert best(make("least-tokens"), [a(decode_tokens=100), b()]) == "b"


def test_power_of_two_takes_the_less_loaded_of_those_drawn() -> None:
    """The most loaded of three never wins; each of the others does at times, and a seed repeats the draws."""
    views = [a(requests=1), b(requests=2), EndpointView("c", 8, requests=3)]
    first, again = make("power-of-two", {"seed": 7}), make("power-of-two", {"seed": 7})
    drawn = [best(first, views) for _ in range(64)]
    assert set(drawn) == {"a", "b"}
    assert drawn == [best(again, views) for _ in range(64)]


def test_consistent_hash_keeps_prompts_apart_from_load_until_it_is_too_much() -> None:
    views = [EndpointView(name, 8) for name in "abcdefgh"]
    policy = make("consistent-hash")
    homes = {n: best(policy, views, Ask(100, 1, (n * 7919, n * 104729))) for n in range(64)}
    assert len(set(homes.values())) > 4
    for n, home in homes.items():
        ask = Ask(100, 1, (n * 7919, n * 104729, 5))
        assert best(policy, views[::-1], ask) == home, "the order of endpoints must not matter"
        without = [view for view in views if view.name != "a"]
        assert home == "a" or best(policy, without, ask) == home, "the others' prompts stay"
        loaded = [replace(view, requests=7 if view.name == home else 1) for view in views]
        assert best(policy, loaded, ask) != home


def test_cache_threshold_is_sglangs_rule() -> None:
    policy = make("cache-threshold")
    assert best(policy, [a(cached_tokens=501, requests=5), b()]) == "a"
    assert best(policy, [a(cached_tokens=500, requests=5), b()]) == "b", "not above the threshold"
    assert best(policy, [a(cached_tokens=900, requests=33), b()]) == "b", "imbalanced"


def test_linear_is_dynamos_cost() -> None:
    """Prefill less what is cached, plus decode; both with the prompt in them."""
    views = [a(prefill_tokens=300, cached_tokens=400, decode_tokens=50), b(requests=2)]
    assert make("linear").costs(ASK, views, 0) == [300 + 600 + 1050, 1000 + 1000]
    scaled = make("linear", {"prefill_scale": 8, "request_weight": 10, "overlap_decay": 1})
    credit = 400 / (1 + 300 / 1000)
    assert scaled.costs(ASK, views, 0) == pytest.approx([8 * (1300 - credit) + 1050, 8000 + 1000 + 20])


def test_sticky_stays_until_the_wait_is_too_long() -> None:
    policy = make("sticky", {"max_penalty_s": 0.5})
    warm = a(cached_tokens=800, prefill_tokens=9_999)
    assert best(policy, [warm, b()]) == "a"
    assert best(policy, [a(cached_tokens=800, prefill_tokens=10_001), b()]) == "b"
    assert best(policy, [a(cached_tokens=799, prefill_tokens=9_999), b()]) == "b", "not warm enough"


def test_product_weighs_uncached_tokens_by_batch() -> None:
    """900 cached of 1,000 are worth a batch of up to ten times the other's, and no more."""
    policy = make("product")
    assert best(policy, [a(cached_tokens=900, requests=8), b()]) == "a"
    assert best(policy, [a(cached_tokens=900, requests=10), b()]) == "b"
    assert best(policy, [a(prefill_tokens_per_s=5_000.0), b(requests=2)]) == "b", "a slow engine"
    assert best(policy, [a(surcharge_tokens=10), b()]) == "b"


def test_predicted_ttft_counts_the_delay_of_others() -> None:
    views = [a(requests=8), b(prefill_tokens=1000)]
    assert best(make("predicted-ttft", {"externality": 0, "request_tokens": 100}), views) == "a"
    assert best(make("predicted-ttft"), views) == "b"
    assert views[1].ttft_s(ASK) == pytest.approx(2000 / 20_000 + 0.03)


def test_predicted_ttft_waits_for_a_cached_prompt_by_its_length() -> None:
    """What a prompt that is cached waits for its engine is bounded by what it takes alone."""
    for tokens in (10_000, 40_000):
        ask = Ask(tokens, 1)
        for share, taken in ((0.5, "a"), (6, "b")):
            warm = a(cached_tokens=tokens - 100, prefill_tokens=int(share * tokens))
            assert best(make("predicted-ttft"), [warm, b()], ask) == taken
    busy = a(cached_tokens=39_900, prefill_tokens=60_000)
    indifferent = {"externality": 0, "request_tokens": 0, "reuse": 0, "lateness_s": 0}
    assert best(make("predicted-ttft", {**indifferent, "reuse": 1}), [busy, b()], Ask(40_000, 1)) == "a"
    assert best(make("predicted-ttft", {**indifferent, "lateness_s": 0}), [busy, b()], Ask(40_000, 1)) == "b"
    late = {**indifferent, "reuse": 1, "lateness_s": 5}
    assert best(make("predicted-ttft", late), [busy, b()], Ask(40_000, 1)) == "b"


def test_engines_of_one_kind_are_taken_to_be_equally_fast() -> None:
    """Forecasts differ by chance; a factor of two is no chance."""
    slower = [a(prefill_tokens_per_s=12_000.0), b(prefill_tokens=100)]
    for name in ("product", "predicted-ttft"):
        assert best(make(name), slower) == "a"
        assert best(make(name), [a(prefill_tokens_per_s=8_000.0), slower[1]]) == "b"


def test_weighted_gives_exact_shares_and_no_arrears() -> None:
    policy, views = make("weighted"), [a(weight=0.95), b(weight=0.05)]
    assert Counter(best(policy, views) for _ in range(98)) == {"a": 94, "b": 4}
    returning = [*views, EndpointView("c", 8, weight=1.0)]
    assert Counter(best(policy, returning) for _ in range(20))["c"] in (9, 10, 11)
    assert make("weighted").costs(ASK, [a(weight=0.0), b()], 0)[0] == inf


def test_a_session_stays_until_its_endpoint_is_full_or_its_time_is_over() -> None:
    policy = make("session-affinity", {"ttl_s": 10, "max_sessions": 2})
    assert best(policy, [a(), b(requests=1)]) == "a"
    assert best(policy, [a(requests=7), b()], now_s=9) == "a"
    assert best(policy, [a(requests=8), b()], now_s=10) == "b", "full"
    assert best(policy, [a(), b(requests=1)], ASK._replace(tenant="other"), 11) == "a", "another tenant's"
    assert best(policy, [a(), b(requests=1)], now_s=20) == "b"
    assert best(policy, [a(), b(requests=1)], now_s=31) == "a", "its time is over"
    for session in ("x", "y"):
        best(policy, [b()], ASK._replace(session=session), 31)
    assert best(policy, [a(requests=1), b()], now_s=31) == "b", "forgotten for newer ones"


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("prodct", {}, r"policy: there is no routing policy 'prodct'.*product"),
        ("sticky", {"mach": 1}, r"policy_options.mach: .*no such option. Its options: match, max_penalty_s"),
        ("sticky", {"match": 2}, r"policy_options.match: must be between 0 and 1"),
        ("sticky", {"match": float("nan")}, r"policy_options.match: must be a number"),
        ("product", {"x": 1}, r"Its options: none"),
    ],
)
def test_what_cannot_be_made_is_named(name: str, options: dict[str, float], said: str) -> None:
    with pytest.raises(PolicyError, match=said):
        make(name, options)


class Brought:
    """As another package would bring it."""

    OPTIONS: ClassVar[Mapping[str, Option]] = {"place": Option(0, 0, 1, "which endpoint")}

    def __init__(self, place: float) -> None:
        self.place = place

    def costs(self, ask: Ask, views: Sequence[EndpointView], now_s: float) -> Sequence[float]:
        return [abs(place - self.place) for place in range(len(views))]

    def chosen(self, ask: Ask, view: EndpointView, now_s: float) -> None: ...


def test_packages_bring_policies_by_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    """By their own names; they cannot replace one of ours, and a broken one is named."""
    import sys
    import types

    module = types.ModuleType("brought_by_another")
    module.policy, module.nothing = Brought, object()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "brought_by_another", module)
    found = [
        EntryPoint("second", "brought_by_another:policy", GROUP),
        EntryPoint("product", "brought_by_another:policy", GROUP),
        EntryPoint("broken", "brought_by_another:nothing", GROUP),
        EntryPoint("missing", "brought_by_another:gone", GROUP),
    ]
    assert best(make("second", {"place": 1}, found), [a(), b()]) == "b"
    assert not isinstance(make("product", {}, found), Brought)
    assert "second" in names(found)
    with pytest.raises(PolicyError, match="is not a policy"):
        make("broken", {}, found)
    with pytest.raises(PolicyError, match="could not be loaded"):
        make("missing", {}, found)


PAGE = Path(__file__).parents[2] / "docs" / "routing-policies.md"


@pytest.mark.parametrize("name", OWN)
def test_the_page_tells_of_every_policy_and_its_defaults(name: str) -> None:
    """By the row of its name."""
    (row,) = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith(f"| `{name}`")]
    assert "(default)" in row or name != Knobs().policy
    for option, known in OWN[name].OPTIONS.items():
        assert re.search(rf"`{option}` \({known.default:g}\b", row), option


def test_the_pages_own_policy_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is printed, by the entry point that it names."""
    text = PAGE.read_text("utf-8")
    code = text.split("```python\n")[1].split("```")[0]
    (tmp_path / "my_package.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    point = re.search(r'^(\S+) = "(\S+)"', text, re.MULTILINE)
    assert point is not None
    found = [EntryPoint(point[1], point[2], GROUP)]
    policy = make(point[1], {"per_request": 2}, found)
    assert policy.costs(ASK, [a(requests=3), EndpointView("long", 8)], 0) == [7, 4]
    assert GROUP in text
