"""Catalogue: routing policies by name, this project's and those that installed packages bring.

A package brings one by an entry point of the group `enginehouse.routing_policies`, whose name is the policy's
and whose object is a `router.policies.options.Kind`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import cast

from router.policies.affinity import CacheThreshold, ConsistentHash, SessionAffinity, Sticky
from router.policies.load import LeastRequests, LeastTokens, PowerOfTwo
from router.policies.options import Kind, Option
from router.policies.prefill import Linear, PredictedTtft, Product
from router.policies.turns import RoundRobin, Weighted
from router.view import Policy

GROUP = "enginehouse.routing_policies"

OWN: Mapping[str, Kind] = MappingProxyType(
    {
        "round-robin": RoundRobin,
        "least-requests": LeastRequests,
        "least-tokens": LeastTokens,
        "power-of-two": PowerOfTwo,
        "consistent-hash": ConsistentHash,
        "cache-threshold": CacheThreshold,
        "linear": Linear,
        "sticky": Sticky,
        "product": Product,
        "predicted-ttft": PredictedTtft,
        "weighted": Weighted,
        "session-affinity": SessionAffinity,
    }
)


class PolicyError(ValueError):
    """No such policy or option, or a value that it does not take; the message names field and remedy."""


def names(found: Iterable[EntryPoint] | None = None) -> tuple[str, ...]:
    """Every policy that `make` knows, in alphabetical order."""
    return tuple(sorted({*OWN, *_brought(found)}))


def make(
    name: str, options: Mapping[str, float] | None = None, found: Iterable[EntryPoint] | None = None
) -> Policy:
    """A new policy with its own memory. Raises PolicyError.

    `found`: the entry points to look at, in place of those of the installed packages.
    """
    kind = OWN.get(name) or _loaded(name, _brought(found))
    options = options or {}
    for option, value in options.items():
        known = kind.OPTIONS.get(option)
        if known is None:
            has = ", ".join(sorted(kind.OPTIONS)) or "none"
            raise PolicyError(
                f"policy_options.{option}: the policy {name!r} has no such option. Its options: {has}."
            )
        if (refusal := known.refusal(value)) is not None:
            raise PolicyError(f"policy_options.{option}: {refusal}, not {value!r}.")
    return kind(**{option: options.get(option, known.default) for option, known in kind.OPTIONS.items()})


def _loaded(name: str, brought: Mapping[str, EntryPoint]) -> Kind:
    if name not in brought:
        raise PolicyError(
            f"policy: there is no routing policy {name!r}. Known are {', '.join(sorted({*OWN, *brought}))}; "
            f"a package adds one by an entry point of the group {GROUP!r}."
        )
    point = brought[name]
    try:
        kind = point.load()
    except Exception as error:
        raise PolicyError(
            f"policy: {name!r} could not be loaded from {point.value!r}: {error}. "
            "Mend or remove that package."
        ) from error
    options = getattr(kind, "OPTIONS", None)
    whole = isinstance(options, Mapping) and all(isinstance(one, Option) for one in options.values())
    if not (callable(kind) and whole):
        raise PolicyError(
            f"policy: {point.value!r} is not a policy. Give it `OPTIONS`, names with "
            "`router.policies.options.Option` each, and let calling it return a `router.view.Policy`."
        )
    return cast("Kind", kind)


def _brought(found: Iterable[EntryPoint] | None) -> Mapping[str, EntryPoint]:
    return _installed() if found is None else {point.name: point for point in found}


@cache
def _installed() -> Mapping[str, EntryPoint]:
    """Once per process: reading the metadata of all packages takes milliseconds."""
    return {point.name: point for point in entry_points(group=GROUP)}
