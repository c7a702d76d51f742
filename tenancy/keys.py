"""API keys: made here once, known afterwards by their SHA-256 only, and turned into an identity per request.

A key is 32 random bytes, so a plain hash is enough at rest: there is nothing to guess. Looking a key up
takes a hash and a dictionary look-up of the digest, whether it exists or not.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from time import time

from model_registry.snapshot import Snapshot
from model_registry.tenants import ApiKey, Tenant
from tenancy.errors import (
    DisabledKeyError,
    ExpiredKeyError,
    KeysNotLoadedError,
    MalformedKeyError,
    MissingKeyError,
    UnknownKeyError,
)
from tenancy.policy import EffectivePolicy, effective

PREFIX = "eh-"
SECRET_BYTES = 32
MAX_HEADER_LENGTH = 1024
CACHE_SIZE = 4096


@dataclass(frozen=True, slots=True)
class Identity:
    """Who calls."""

    tenant: Tenant
    key_name: str
    admin: bool
    """May use the admin API."""
    policy: EffectivePolicy
    expires_s: float | None = None
    """Unix time from which on the key lets nobody in."""


def new_key() -> tuple[str, str]:
    """A fresh key in clear, to be shown once, and its SHA-256 in hex, to be stored."""
    key = PREFIX + secrets.token_urlsafe(SECRET_BYTES)
    return key, digest(key)


def digest(key: str) -> str:
    """The hex SHA-256 by which a key is stored and found."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def _mark(said: str) -> bytes:
    """What stands in memory for what was said; BLAKE2s takes a third of SHA-256's time for a header."""
    return hashlib.blake2s(said.encode("utf-8", "surrogateescape")).digest()


def authenticate(snapshot: Snapshot, authorization: str | None, api_key: str | None = None) -> Identity:
    """The caller whose key an `Authorization: Bearer ...` header carries, or else an `x-api-key` header.

    Raises AuthError: MissingKeyError, MalformedKeyError, UnknownKeyError, DisabledKeyError, ExpiredKeyError
    or, while nothing is known of the registry, KeysNotLoadedError.
    """
    is_bearer = api_key is None or bool(authorization)
    said = _mark(f"Authorization:{authorization}" if is_bearer else f"x-api-key:{api_key}")
    known = _cache.of(snapshot)
    identity = known.get(said)
    if identity is None:
        identity = _identify(snapshot, digest(_bearer(authorization) if is_bearer else _plain(api_key or "")))
        if len(known) >= CACHE_SIZE:
            known.clear()
        known[said] = identity
    return identity if identity.expires_s is None else _in_time(identity)


class _Cache:
    """Identities by what was said, digested, of one snapshot only: a newer one may have disabled a key.

    The header as a whole is looked up first, so that one which came before need not be taken apart again.
    """

    def __init__(self) -> None:
        self._snapshot: Snapshot | None = None
        self._known: dict[bytes, Identity] = {}

    def of(self, snapshot: Snapshot) -> dict[bytes, Identity]:
        if self._snapshot is not snapshot:
            self._snapshot, self._known = snapshot, {}
        return self._known


_cache = _Cache()


def _bearer(authorization: str | None) -> str:
    if authorization is None or not authorization.strip():
        raise MissingKeyError(
            "no API key was given; send it as 'Authorization: Bearer <key>' or as 'x-api-key: <key>'"
        )
    scheme, _, key = authorization.strip().partition(" ")
    key = key.strip()
    if len(authorization) > MAX_HEADER_LENGTH or scheme.lower() != "bearer" or not key or " " in key:
        raise MalformedKeyError("the Authorization header must be 'Bearer <key>'")
    return key


def _plain(api_key: str) -> str:
    key = api_key.strip()
    if not key:
        raise MissingKeyError("the x-api-key header is empty; send 'x-api-key: <key>'")
    if len(api_key) > MAX_HEADER_LENGTH or " " in key:
        raise MalformedKeyError("the x-api-key header must hold the key and nothing else")
    return key


def _identify(snapshot: Snapshot, found: str) -> Identity:
    if snapshot.stale:
        raise KeysNotLoadedError("this gateway does not know any key yet; try again in a moment")
    key = snapshot.keys.get(found)
    if key is None:
        raise UnknownKeyError("this API key is not known")
    return _checked(snapshot, key)


def identity_of(snapshot: Snapshot, tenant: str, key_name: str) -> Identity:
    """As whom work goes on that a key of `tenant` began. Raises AuthError when it may not.

    Looks through all keys: ask once for each snapshot.
    """
    if snapshot.stale:
        raise KeysNotLoadedError("this gateway does not know any key yet; try again in a moment")
    key = next((k for k in snapshot.keys.values() if k.name == key_name and k.tenant == tenant), None)
    if key is None:
        raise UnknownKeyError("the API key that began this does not exist any more")
    return _in_time(_checked(snapshot, key))


def _in_time(identity: Identity) -> Identity:
    if identity.expires_s is not None and time() >= identity.expires_s:
        raise ExpiredKeyError("this API key has expired; ask for a new one")
    return identity


def _checked(snapshot: Snapshot, key: ApiKey) -> Identity:
    tenant = snapshot.tenants.get(key.tenant)
    if tenant is None:
        raise DisabledKeyError("the tenant of this API key does not exist any more")
    if key.revoked:
        raise DisabledKeyError("this API key is revoked")
    if key.disabled:
        raise DisabledKeyError("this API key is disabled")
    if tenant.disabled:
        raise DisabledKeyError("the tenant of this API key is disabled")
    policy = None if tenant.policy is None else snapshot.policies.get(tenant.policy)
    if policy is None and tenant.policy is not None:
        raise DisabledKeyError("the policy of this API key's tenant does not exist any more")
    expires_s = None if key.expires_at is None else key.expires_at.timestamp()
    return Identity(tenant, key.name, key.admin, effective(tenant, key, policy), expires_s)
