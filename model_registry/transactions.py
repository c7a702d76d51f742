"""Transactions: what a change makes of the registry, and whether it may be. Pure; the store commits it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from model_registry import integrity, pool_conflicts
from model_registry.changes import Contents
from model_registry.entities import Adapter, Model
from model_registry.errors import RevokedKeyError, UnknownObjectError
from model_registry.history import FieldChange
from model_registry.kinds import Ref, ref_of
from model_registry.snapshot import Stored
from model_registry.tenants import ApiKey

Outcome = Literal["created", "configured", "unchanged", "deleted"]


class Applied(NamedTuple):
    """What a change came to, object by object."""

    version: int
    outcomes: tuple[tuple[Ref, Outcome], ...]
    fields: Mapping[Ref, tuple[FieldChange, ...]]
    """What differs in each object that was to be stored."""


def last_of_each(objects: Iterable[Stored]) -> list[Stored]:
    """Of objects of one kind and name the last."""
    return list({ref_of(item): item for item in objects}.values())


def with_created(objects: Iterable[Stored], contents: Contents) -> list[Stored]:
    """Give every model and adapter the time at which it was first stored, in Unix seconds of Redis."""
    dated: list[Stored] = []
    for item in objects:
        if isinstance(item, Model | Adapter):
            stored = contents.objects.get(ref_of(item))
            known = stored.created if isinstance(stored, Model | Adapter) else item.created
            item = item.model_copy(update={"created": known or contents.now_ms // 1000})
        dated.append(item)
    return dated


def planned(puts: Sequence[Stored], delete: Sequence[Ref], contents: Contents, cascade: bool) -> set[Ref]:
    """Check the change against the rules; returns everything that is deleted by it.

    Raises DanglingReferenceError, NameTakenError, InUseError, RevokedKeyError, UnknownObjectError.
    """
    for item in puts:
        stored = contents.objects.get(ref_of(item))
        if isinstance(item, ApiKey) and isinstance(stored, ApiKey) and stored.revoked and not item.revoked:
            raise RevokedKeyError(item.name)
    for ref in delete:
        if ref not in contents.objects:
            raise UnknownObjectError(*ref)
    after = {ref: item for ref, item in contents.objects.items() if ref not in set(delete)}
    after.update({ref_of(item): item for item in puts})
    gone = integrity.deletion(delete, after, cascade) - {ref_of(item) for item in puts}
    for ref in gone:
        after.pop(ref, None)
    integrity.check_put(puts, after)
    pool_conflicts.check(pool_conflicts.stranding(puts, contents.objects, after))
    return gone


def outcomes_of(
    puts: Iterable[Stored], gone: Iterable[Ref], contents: Contents
) -> tuple[tuple[Ref, Outcome], ...]:
    """What becomes of each object that is put, then of each that goes."""
    outcomes: list[tuple[Ref, Outcome]] = []
    for item in puts:
        stored = contents.objects.get(ref_of(item))
        outcome: Outcome = "created" if stored is None else "unchanged" if stored == item else "configured"
        outcomes.append((ref_of(item), outcome))
    return (*outcomes, *((ref, "deleted") for ref in sorted(gone)))
