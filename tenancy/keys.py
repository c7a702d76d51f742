"""API keys: made here, kept only as hashes, recognised from the snapshot without waiting for anything."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass

from model_registry.entities import ApiKey, Tenant
from model_registry.snapshot import Snapshot
from tenancy.errors import DisabledKeyError, MalformedKeyError, MissingKeyError, UnknownKeyError

PREFIX = "eh-"
_SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class Identity:
    """Who is calling."""

    tenant: Tenant
    key: ApiKey

    @property
    def admin(self) -> bool:
        """May use the admin API."""
        return self.key.admin


def new_key() -> tuple[str, str]:
    """A key, to be shown once, and its hex SHA-256, to be kept.

    256 random bits need no slow hash: there is nothing to guess.
    """
    clear = PREFIX + secrets.token_urlsafe(_SECRET_BYTES)
    return clear, digest(clear)


def digest(clear: str) -> str:
    """Hex SHA-256 of a key, as the registry keeps it."""
    return hashlib.sha256(clear.encode("utf-8", "surrogateescape")).hexdigest()


def authenticate(snapshot: Snapshot, authorization: str | None) -> Identity:
    """The caller behind an `Authorization` header. Raises AuthError."""
    if not authorization:
        raise MissingKeyError("No API key was sent. Send the header 'Authorization: Bearer <key>'.")
    scheme, _, clear = authorization.partition(" ")
    clear = clear.strip()
    if scheme.lower() != "bearer" or not clear:
        raise MalformedKeyError("The Authorization header must be 'Bearer <key>'.")
    key = snapshot.keys.get(digest(clear))
    if key is None:
        raise UnknownKeyError("This API key is not known here. Ask the operator for one.")
    tenant = snapshot.tenants.get(key.tenant)
    if tenant is None:
        raise UnknownKeyError("This API key belongs to no tenant. Ask the operator for another one.")
    if key.disabled or tenant.disabled:
        raise DisabledKeyError("This API key is switched off. Ask the operator.")
    return Identity(tenant, key)
