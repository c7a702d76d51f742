"""Fallback: which other model answers when the one that was asked for cannot. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple

from msgspec.structs import replace

from gateway.api.errors import shape_of
from model_registry.entities import Model
from model_registry.snapshot import Snapshot
from model_registry.tenants import Fallback
from router.errors import UnknownModelError
from router.profiles import FALLBACK, Wish, resolve
from tenancy.policy import EffectivePolicy

_CAUSES = {
    "context_length_exceeded": "context_length",
    "model_loading": "no_endpoints",
    "cold_queue_full": "no_endpoints",
}
"""Causes that errors call otherwise; all others are called as the error's code is."""


class StandIn(NamedTuple):
    """What is asked instead, and what the client is told of it."""

    wish: Wish
    name: str
    """As the policy writes it."""
    header: bytes
    """Ends with its line."""


def stand_in(
    snapshot: Snapshot, policy: EffectivePolicy, failed: Wish, tried: Collection[str], error: Exception
) -> StandIn | None:
    """What may answer for `failed`, which came to `error`; None: nothing.

    Nothing that was `tried`, by its own name; a fallback to what does not exist is passed over.
    """
    code = shape_of(error).code
    cause = _CAUSES.get(code, code)
    for _, wish in _willing(snapshot, policy, failed, tried, cause):
        told = f"x-enginehouse-fallback: {failed.name}>{wish.name};{cause}\r\n"
        return StandIn(replace(wish, reason=FALLBACK), wish.name, told.encode("latin-1", "replace"))
    return None


def has_stand_in(snapshot: Snapshot, policy: EffectivePolicy, asked: Wish, tried: Collection[str]) -> bool:
    """Whether a model that is up may answer at once for `asked`, should that not be up."""
    return any(
        not fallback.after_holding and _is_up(snapshot, policy, wish.model)
        for fallback, wish in _willing(snapshot, policy, asked, tried, "no_endpoints")
    )


def _willing(
    snapshot: Snapshot, policy: EffectivePolicy, failed: Wish, tried: Collection[str], cause: str
) -> Iterator[tuple[Fallback, Wish]]:
    for fallback in policy.fallbacks_for(failed.model, cause):
        try:
            wish = resolve(snapshot, fallback.to, None, None, policy.profile_for)
        except UnknownModelError:
            continue
        if wish.name not in tried and wish.model.modality == failed.model.modality:
            yield fallback, wish


def _is_up(snapshot: Snapshot, policy: EffectivePolicy, model: Model) -> bool:
    endpoints = (one for one in snapshot.endpoints.get(model.name, ()) if one.state == "ready" and one.weight)
    return any(policy.selection is None or policy.selection.fits(one) for one in endpoints)
