"""What holds for a key's requests: its tenant's terms, else its policy's, else the defaults; never more."""

from __future__ import annotations

import pytest

from model_registry.entities import Endpoint, Model
from model_registry.tenants import ApiKey, Fallback, Policy, Tenant
from tenancy.limits_spec import Limits
from tenancy.policy import EffectivePolicy, effective

MODEL = Model(name="chat", context_length=10)
KEY = ApiKey(name="k", tenant="t", sha256="ab" * 32)
GOLD = Policy(
    name="gold",
    allowed_models=("chat",),
    allowed_profiles=("latency", "balanced"),
    default_profile="latency",
    weight=4.0,
    priority="critical",
    deadline_s=20.0,
    concurrency=8,
    requests_per_min=60,
    selectors={"region": ("eu",), "gpu_class": ("h100", "h200")},
    kv_isolation="tenant",
)


def endpoint(**labels: str) -> Endpoint:
    return Endpoint(
        name="d@a:1",
        deployment="d",
        model="chat",
        profile="balanced",
        lane="llmapi",
        target="t",
        http="http://a:1",
        labels=labels,
    )


def test_without_a_policy_a_tenant_may_do_anything() -> None:
    assert effective(Tenant(name="t"), KEY, None) == EffectivePolicy("t")
    assert EffectivePolicy("t").allows(MODEL)
    assert EffectivePolicy("t").profile_for(MODEL) == "balanced"


def test_a_tenants_own_terms_win_over_its_policys_one_by_one() -> None:
    tenant = Tenant(name="t", policy="gold", weight=2.0, concurrency=1, kv_isolation="shared")
    found = effective(tenant, KEY, GOLD)
    assert (found.name, found.weight, found.priority, found.deadline_s) == ("gold", 2.0, "critical", 20.0)
    assert found.limits == Limits(concurrency=1, requests_per_min=60)
    assert found.isolation_class == ""
    assert effective(Tenant(name="t", policy="gold"), KEY, GOLD).isolation_class == "t"


def test_a_tenant_may_be_given_back_all_that_its_policy_takes() -> None:
    other = Model(name="other", context_length=10)
    assert not effective(Tenant(name="t"), KEY, GOLD).allows(other)
    assert effective(Tenant(name="t", allowed_models=("*",)), KEY, GOLD).allows(other)


def test_a_keys_scope_only_takes_away() -> None:
    wider = KEY.model_copy(update={"models": ("*",), "profiles": ("throughput", "balanced")})
    found = effective(Tenant(name="t"), wider, GOLD)
    assert not found.allows(Model(name="other", context_length=10))
    assert found.profiles == ("balanced",)
    narrower = KEY.model_copy(update={"models": ()})
    assert not effective(Tenant(name="t"), narrower, GOLD).allows(MODEL)
    assert effective(Tenant(name="t"), wider, None).profiles == ("throughput", "balanced")


@pytest.mark.parametrize(
    ("allowed", "default", "expected"),
    [
        (None, None, "balanced"),
        (None, "latency", "latency"),
        (("throughput", "latency"), None, "throughput"),
        (("throughput", "latency"), "latency", "latency"),
        (("throughput",), "latency", "throughput"),
        (("balanced", "latency"), None, "balanced"),
    ],
)
def test_who_names_no_profile_gets_one_that_is_allowed(
    allowed: tuple[str, ...] | None, default: str | None, expected: str
) -> None:
    assert EffectivePolicy("t", profiles=allowed, default_profile=default).profile_for(MODEL) == expected


def test_an_endpoint_fits_when_every_label_does() -> None:
    selection = effective(Tenant(name="t"), KEY, GOLD).selection
    assert selection is not None
    assert selection.fits(endpoint(region="eu", gpu_class="h200", more="x"))
    assert not selection.fits(endpoint(region="us", gpu_class="h200"))
    assert not selection.fits(endpoint(region="eu"))
    by_name = effective(Tenant(name="t", selectors={"endpoint": ("d@a:1",), "deployment": ("d",)}), KEY, None)
    assert by_name.selection is not None
    assert by_name.selection.fits(endpoint())
    elsewhere = effective(Tenant(name="t", selectors={"deployment": ("e",)}), KEY, None)
    assert elsewhere.selection is not None
    assert not elsewhere.selection.fits(endpoint())


def test_a_tenant_lifts_its_policys_selectors_by_none_at_all() -> None:
    assert effective(Tenant(name="t", selectors={}), KEY, GOLD).selection is None


def test_fallbacks_are_for_their_causes_and_models_in_order() -> None:
    first = Fallback(causes=("queue_full",), to="a")
    other = Fallback(causes=("queue_full",), to="b", models=("else",))
    last = Fallback(causes=("no_endpoints", "queue_full"), to="c", models=("chat",))
    found = EffectivePolicy("t", fallbacks=(first, other, last))
    assert list(found.fallbacks_for(MODEL, "queue_full")) == [first, last]
    assert list(found.fallbacks_for(MODEL, "no_endpoints")) == [last]
    assert not list(found.fallbacks_for(MODEL, "context_length"))
