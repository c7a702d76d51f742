"""Which profile a request wants, and which ones may stand in for it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from msgspec import Struct

from model_registry.entities import Adapter, Model
from model_registry.knobs import BUILT_IN, Knobs, knobs_of
from model_registry.snapshot import Snapshot
from router.errors import UnknownModelError

TIERS = {"latency": "priority", "throughput": "flex"}
"""OpenAI's `service_tier` by profile; every other profile is its `default`."""
_PROFILES = {tier: profile for profile, tier in TIERS.items()}


BATCH_JOB = "batch_job"
FALLBACK = "fallback"
"""Reasons of wishes that nobody has asked for as they are."""


class Wish(Struct, frozen=True, gc=False):
    """A model and the profile it is wanted under; `reason` says who chose the profile."""

    model: Model
    profile: str
    reason: str
    adapter: Adapter | None = None
    """LoRA weights that the model is wanted with."""
    asked: str | None = None
    """The name it was asked for by, without a profile."""

    @property
    def name(self) -> str:
        """What is wanted, by its own name: `model`, or `model+adapter`."""
        return self.model.name if self.adapter is None else self.adapter.full_name


def resolve(
    snapshot: Snapshot,
    name: str,
    service_tier: str | None,
    header: str | None,
    default: Callable[[Model], str] | None = None,
) -> Wish:
    """What `name` (model, `model+adapter`, alias of either, each with `:profile`) stands for.

    The suffix wins over the header, the header over `service_tier`, and that over `default`, or else the
    model's own default.
    Raises UnknownModelError, naming the nearest model.
    """
    model, adapter, suffix = snapshot.model(name), None, None
    if model is None:
        model, adapter, suffix = _longer_name(snapshot, name)
    if suffix is not None:
        asked = name.removesuffix(f":{suffix}")
        return Wish(model, _known(snapshot, model, suffix, name), "suffix", adapter, asked)
    if header is not None:
        known = _known(snapshot, model, header, f"{name} with profile {header}")
        return Wish(model, known, "header", adapter, name)
    if service_tier in _PROFILES:
        return Wish(model, _PROFILES[service_tier], "service_tier", adapter, name)
    profile = model.default_profile if default is None else default(model)
    return Wish(model, profile, "default", adapter, name)


def _longer_name(snapshot: Snapshot, name: str) -> tuple[Model, Adapter | None, str | None]:
    """Model, adapter and profile in a name that is not just a model's. Raises UnknownModelError."""
    before, colon, profile = name.rpartition(":")
    base, suffix = (before, profile) if colon else (name, None)
    if (model := snapshot.model(base)) is not None:
        return model, None, suffix
    adapter = snapshot.adapter(base)
    if adapter is not None and (model := snapshot.models.get(adapter.model)) is not None:
        return model, adapter, suffix
    shown = (full for full, adapter in snapshot.adapters.items() if not adapter.restricted)
    raise UnknownModelError(name, nearest(name, [*snapshot.models, *snapshot.aliases, *shown]))


def stand_ins(profile: str, offered: Iterable[str], knobs: Knobs | None = None) -> tuple[str, ...]:
    """The profiles to try in turn; those that `knobs` (default: the profile's) do not name stand in last."""
    spills_to = (knobs or knobs_of(profile)).spills_to
    order = (profile, *(other for other in spills_to if other != profile))
    return (*order, *sorted(set(offered) - set(order)))


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like `name`, if any is."""
    import difflib

    found = difflib.get_close_matches(name, list(known), n=1)
    return found[0] if found else None


def _known(snapshot: Snapshot, model: Model, profile: str, asked: str) -> str:
    offered = {deployment.profile for deployment in snapshot.deployments.get(model.name, ())}
    offered |= BUILT_IN.keys() | snapshot.profiles.keys()
    if profile in offered:
        return profile
    raise UnknownModelError(asked, profiles=sorted(offered))
