"""Keys let in exactly those who should be, from a snapshot, without waiting."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest

from model_registry.snapshot import Snapshot
from model_registry.tenants import ApiKey, Tenant
from tenancy import keys
from tenancy.errors import (
    AuthError,
    DisabledKeyError,
    ExpiredKeyError,
    KeysNotLoadedError,
    MalformedKeyError,
    MissingKeyError,
    UnknownKeyError,
)
from tenancy.keys import authenticate, identity_of, new_key

KEY = "eh-" + "Zk3_" * 10 + "Zk3"
"""Always the same, since it stands in the names of tests."""
DIGEST = keys.digest(KEY)


def snapshot(*, key: dict[str, Any] | None = None, tenant: dict[str, Any] | None = None) -> Snapshot:
    return Snapshot.of(
        1,
        [
            Tenant(name="acme", **(tenant or {})),
            ApiKey(name="laptop", tenant="acme", sha256=DIGEST, **(key or {})),
        ],
    )


def test_new_keys_are_long_url_safe_and_different() -> None:
    made = {new_key() for _ in range(100)}
    assert len(made) == 100
    assert all(re.fullmatch(r"eh-[A-Za-z0-9_-]{43}", clear) for clear, _ in made)
    assert all(keys.digest(clear) == digest for clear, digest in made)


@pytest.mark.parametrize("header", [f"Bearer {KEY}", f"bearer {KEY}", f"  BEARER   {KEY} "])
def test_a_known_key_names_its_tenant(header: str) -> None:
    identity = authenticate(snapshot(), header)
    assert (identity.tenant.name, identity.key_name, identity.admin) == ("acme", "laptop", False)


@pytest.mark.parametrize(
    ("authorization", "api_key"), [(None, KEY), ("", KEY), (None, f" {KEY} "), (f"Bearer {KEY}", "eh-nobody")]
)
def test_a_key_may_come_by_itself(authorization: str | None, api_key: str) -> None:
    """In `x-api-key`, where there is no Authorization header, which counts first."""
    assert authenticate(snapshot(), authorization, api_key).key_name == "laptop"


@pytest.mark.parametrize(
    ("api_key", "error"),
    [
        ("", MissingKeyError),
        ("  ", MissingKeyError),
        (f"Bearer {KEY}", MalformedKeyError),
        ("x" * 5000, MalformedKeyError),
        ("eh-nobody", UnknownKeyError),
    ],
)
def test_what_is_no_key_by_itself(api_key: str, error: type[AuthError]) -> None:
    with pytest.raises(error) as caught:
        authenticate(snapshot(), None, api_key)
    assert KEY not in str(caught.value)


def test_work_goes_on_as_the_key_that_began_it() -> None:
    """For as long as that key and its tenant may."""
    assert identity_of(snapshot(), "acme", "laptop") == authenticate(snapshot(), f"Bearer {KEY}")
    for refused in (snapshot(key={"disabled": True}), snapshot(tenant={"disabled": True})):
        with pytest.raises(DisabledKeyError):
            identity_of(refused, "acme", "laptop")
    for tenant, name in (("acme", "other"), ("other", "laptop")):
        with pytest.raises(UnknownKeyError):
            identity_of(snapshot(), tenant, name)
    with pytest.raises(KeysNotLoadedError):
        identity_of(Snapshot.of(0, [], stale=True), "acme", "laptop")


def test_an_admin_key_says_so() -> None:
    assert authenticate(snapshot(key={"admin": True}), f"Bearer {KEY}").admin


@pytest.mark.parametrize(
    ("header", "error"),
    [
        (None, MissingKeyError),
        ("", MissingKeyError),
        ("   ", MissingKeyError),
        ("Bearer", MalformedKeyError),
        ("Bearer ", MalformedKeyError),
        (KEY, MalformedKeyError),
        (f"Basic {KEY}", MalformedKeyError),
        (f"Bearer {KEY} {KEY}", MalformedKeyError),
        ("Bearer " + "x" * 5000, MalformedKeyError),
        ("Bearer eh-nobody", UnknownKeyError),
        (f"Bearer {KEY}x", UnknownKeyError),
        (f"Bearer {DIGEST}", UnknownKeyError),
        ("Bearer \udce9\x00", UnknownKeyError),
    ],
)
def test_everything_else_is_refused_by_kind(header: str | None, error: type[AuthError]) -> None:
    with pytest.raises(error) as caught:
        authenticate(snapshot(), header)
    assert KEY not in str(caught.value)
    assert type(caught.value) is error


def test_a_disabled_key_or_tenant_is_refused_from_the_next_snapshot_on() -> None:
    assert authenticate(snapshot(), f"Bearer {KEY}")
    with pytest.raises(DisabledKeyError):
        authenticate(snapshot(key={"disabled": True}), f"Bearer {KEY}")
    with pytest.raises(DisabledKeyError):
        authenticate(snapshot(tenant={"disabled": True}), f"Bearer {KEY}")
    with pytest.raises(DisabledKeyError):
        authenticate(Snapshot.of(1, [ApiKey(name="k", tenant="gone", sha256=DIGEST)]), f"Bearer {KEY}")


def test_a_key_is_good_until_it_expires_or_is_revoked(monkeypatch: pytest.MonkeyPatch) -> None:
    limited = snapshot(key={"expires_at": datetime.fromtimestamp(1000, UTC)})
    monkeypatch.setattr(keys, "time", lambda: 999.0)
    assert authenticate(limited, f"Bearer {KEY}").tenant.name == "acme"
    monkeypatch.setattr(keys, "time", lambda: 1000.0)
    with pytest.raises(ExpiredKeyError):
        authenticate(limited, f"Bearer {KEY}")
    with pytest.raises(ExpiredKeyError):
        identity_of(limited, "acme", next(iter(limited.keys.values())).name)
    with pytest.raises(DisabledKeyError, match="revoked"):
        authenticate(snapshot(key={"revoked": True}), f"Bearer {KEY}")


def test_the_cache_is_bounded_and_of_one_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "CACHE_SIZE", 3)
    pairs = [new_key() for _ in range(10)]
    many = Snapshot.of(
        1, [Tenant(name="t")] + [ApiKey(name=f"k{n}", tenant="t", sha256=d) for n, (_, d) in enumerate(pairs)]
    )
    for n, (clear, _) in enumerate(pairs):
        assert authenticate(many, f"Bearer {clear}").key_name == f"k{n}"
        assert len(keys._cache.of(many)) <= 3
    with pytest.raises(UnknownKeyError):
        authenticate(Snapshot.of(2, []), f"Bearer {pairs[0][0]}")


def test_before_the_registry_was_seen_nobody_is_told_that_their_key_is_wrong() -> None:
    with pytest.raises(KeysNotLoadedError):
        authenticate(Snapshot.of(0, [], stale=True), f"Bearer {KEY}")
    with pytest.raises(UnknownKeyError):
        authenticate(Snapshot.of(1, []), f"Bearer {KEY}")
