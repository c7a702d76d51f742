"""Which profile a request wants, and which ones may stand in for it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from model_registry.entities import Model
from model_registry.snapshot import Snapshot
from router.errors import UnknownModelError

_STAND_INS = {
    "latency": ("latency", "balanced", "throughput"),
    "balanced": ("balanced", "latency", "throughput"),
    "throughput": ("throughput", "balanced", "latency"),
}
TIERS = {"latency": "priority", "throughput": "flex"}
"""OpenAI's `service_tier` by profile; every other profile is its `default`."""
_PROFILES = {tier: profile for profile, tier in TIERS.items()}


class Wish(NamedTuple):
    """A model and the profile it is wanted under; `reason` says who chose the profile."""

    model: Model
    profile: str
    reason: str


def resolve(snapshot: Snapshot, name: str, service_tier: str | None, header: str | None) -> Wish:
    """What `name` (model, alias, either with `:profile`) stands for.

    The suffix wins over the header, the header over `service_tier`, and that over the model's default.
    Raises UnknownModelError, naming the nearest model.
    """
    model = snapshot.model(name)
    if model is not None:
        if header is not None:
            return Wish(model, _known(snapshot, model, header, f"{name} with profile {header}"), "header")
        if service_tier in _PROFILES:
            return Wish(model, _PROFILES[service_tier], "service_tier")
        return Wish(model, model.default_profile, "default")
    base, colon, profile = name.rpartition(":")
    if colon and (model := snapshot.model(base)) is not None:
        return Wish(model, _known(snapshot, model, profile, name), "suffix")
    raise UnknownModelError(name, nearest(name, [*snapshot.models, *snapshot.aliases]))


def stand_ins(profile: str, offered: Iterable[str]) -> tuple[str, ...]:
    """The profiles to try in turn; custom ones stand in last, in alphabetical order."""
    order = _STAND_INS.get(profile, (profile, *_STAND_INS["balanced"]))
    return (*order, *sorted(set(offered) - set(order)))


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like `name`, if any is."""
    import difflib

    found = difflib.get_close_matches(name, list(known), n=1)
    return found[0] if found else None


def _known(snapshot: Snapshot, model: Model, profile: str, asked: str) -> str:
    offered = {deployment.profile for deployment in snapshot.deployments.get(model.name, ())}
    if profile in _STAND_INS or profile in offered:
        return profile
    raise UnknownModelError(asked, profiles=sorted(offered | _STAND_INS.keys()))
