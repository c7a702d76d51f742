"""Which profile a request wants, and which ones may stand in for it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from model_registry.entities import Adapter, Model
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
    adapter: Adapter | None = None
    """LoRA weights that the model is wanted with."""

    @property
    def name(self) -> str:
        """What is wanted, by its own name: `model`, or `model+adapter`."""
        return self.model.name if self.adapter is None else self.adapter.full_name


def resolve(snapshot: Snapshot, name: str, service_tier: str | None, header: str | None) -> Wish:
    """What `name` (model, `model+adapter`, alias of either, each with `:profile`) stands for.

    The suffix wins over the header, the header over `service_tier`, and that over the model's default.
    Raises UnknownModelError, naming the nearest model.
    """
    adapter = None
    model = snapshot.model(name)
    if model is None:
        model, adapter = _adapted(snapshot, name)
    if model is not None:
        if header is not None:
            known = _known(snapshot, model, header, f"{name} with profile {header}")
            return Wish(model, known, "header", adapter)
        if service_tier in _PROFILES:
            return Wish(model, _PROFILES[service_tier], "service_tier", adapter)
        return Wish(model, model.default_profile, "default", adapter)
    base, colon, profile = name.rpartition(":")
    if colon:
        if (model := snapshot.model(base)) is None:
            model, adapter = _adapted(snapshot, base)
        if model is not None:
            return Wish(model, _known(snapshot, model, profile, name), "suffix", adapter)
    raise UnknownModelError(name, nearest(name, [*snapshot.models, *snapshot.aliases, *snapshot.adapters]))


def _adapted(snapshot: Snapshot, name: str) -> tuple[Model | None, Adapter | None]:
    """The adapter that `name` stands for, and its base."""
    adapter = snapshot.adapter(name)
    return (None, None) if adapter is None else (snapshot.models.get(adapter.model), adapter)


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
