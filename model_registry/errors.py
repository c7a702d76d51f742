"""What can go wrong with the registry.

RegistryError
├── RegistryUnavailableError      Redis is away, slow, loading, full or refuses us; try again later
│   └── RegistryReadOnlyError     Redis answers reads only (a replica, or a failover under way)
├── RegistryBusyError             the registry changed under every attempt to change it
├── UnknownObjectError            no object of that kind and name
├── UnknownVersionError           no such version of an object is kept
├── RevokedKeyError               a revoked key would be let in again
├── DanglingReferenceError        an object names another that does not exist
├── NameTakenError                a name, alias or key hash would stand for two things
├── InUseError                    an object that others need cannot be deleted
├── PoolConflictError             a pool that could not be looked after as it is wished
├── IllegalTransitionError        a state that may not follow the present one
├── LeadershipLostError           the writer is not the leader any more
├── UnknownKindError              no such kind of object
└── ManifestErrors                manifests with mistakes; carries every one of them
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


class RegistryError(Exception):
    """An operation on the registry failed; nothing was changed unless said otherwise."""


class RegistryUnavailableError(RegistryError):
    """Redis is away, slow, loading, full or refuses us; a write may or may not have happened."""


class RegistryReadOnlyError(RegistryUnavailableError):
    """Redis answers reads only."""


class RegistryBusyError(RegistryError):
    """The registry changed under every attempt to change it."""


class UnknownObjectError(RegistryError):
    """No object of that kind and name."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f"no {kind} named {name!r} in the registry")
        self.kind = kind
        self.name = name


class UnknownVersionError(RegistryError):
    """No such version of an object is kept."""

    def __init__(self, kind: str, name: str, version: int | None, kept: Iterable[int]) -> None:
        wanted = "earlier version" if version is None else f"version {version}"
        choices = ", ".join(map(str, kept)) or "none"
        super().__init__(f"no {wanted} of {kind} {name!r} is kept; there are: {choices}")


class RevokedKeyError(RegistryError):
    """A revoked key would be let in again."""

    def __init__(self, name: str) -> None:
        super().__init__(f"ApiKey {name!r} is revoked for good; make a new key, or delete this one")


class DanglingReferenceError(RegistryError):
    """An object names another that does not exist."""

    def __init__(self, kind: str, name: str, field: str, target_kind: str, target: str) -> None:
        super().__init__(
            f"{kind} {name!r}: {field} names {target_kind} {target!r}, which does not exist; "
            f"apply the {target_kind} first or together with it"
        )
        self.kind = kind
        self.name = name
        self.field = field
        self.target = target


class NameTakenError(RegistryError):
    """A name, alias or key hash would stand for two things."""


class InUseError(RegistryError):
    """An object that others need cannot be deleted."""

    def __init__(
        self,
        kind: str,
        name: str,
        users: Iterable[str],
        remedy: str = "delete those first, or delete with cascade",
    ) -> None:
        self.kind = kind
        self.name = name
        self.users = tuple(users)
        super().__init__(f"{kind} {name!r} is used by {', '.join(self.users)}; {remedy}")


class PoolConflictError(RegistryError):
    """A pool that could not be looked after as it is wished."""

    def __init__(self, pool: str, field: str, message: str) -> None:
        self.pool = pool
        self.field = field
        super().__init__(f"Pool {pool!r}: {field}: {message}")


class IllegalTransitionError(RegistryError):
    """A state that may not follow the present one."""

    def __init__(self, noun: str, present: str, wanted: str, allowed: Iterable[str]) -> None:
        self.present = present
        self.wanted = wanted
        self.allowed = tuple(sorted(allowed))
        choices = ", ".join(self.allowed) or "nothing"
        super().__init__(f"{noun} cannot go from {present!r} to {wanted!r}; allowed from there: {choices}")


class LeadershipLostError(RegistryError):
    """The writer is not the leader any more; its write was refused."""


class UnknownKindError(RegistryError):
    """No such kind of object."""

    def __init__(self, kind: str, allowed: Iterable[str]) -> None:
        self.kind = kind
        self.allowed = tuple(allowed)
        super().__init__(f"unknown kind {kind!r}; one of: {', '.join(self.allowed)}")


@dataclass(frozen=True, slots=True)
class ManifestError:
    """One mistake in a manifest."""

    file: str
    line: int
    """From 1."""
    field: str | None
    """`spec.servers[0].http`; None where the document as a whole is wrong."""
    message: str
    allowed: tuple[str, ...] | None = None
    """What could stand there instead, where that can be listed."""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" + (f": {self.field}" if self.field else "")
        choices = f" (allowed: {', '.join(self.allowed)})" if self.allowed else ""
        return f"{where}: {self.message}{choices}"


class ManifestErrors(RegistryError):  # noqa: N818  it is many
    """Manifests with mistakes: every one of them, in the order of files and lines."""

    def __init__(self, errors: Iterable[ManifestError]) -> None:
        self.errors = tuple(errors)
        super().__init__("\n".join(map(str, self.errors)))
