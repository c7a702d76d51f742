"""Policy: what holds for the requests of one key, from what its tenant, policy and scope say. Pure.

A tenant's own terms win over its policy's, term by term, and what neither says has a default. A key's scope
only takes away. It is worked out once for each key and snapshot (`tenancy.keys`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from model_registry.entities import Adapter, Deployment, Endpoint, Model
from model_registry.pools import Pool
from model_registry.tenants import ApiKey, Fallback, KvIsolation, Policy, Priority, Tenant, Terms
from tenancy.access import may_use
from tenancy.limits_spec import NO_LIMITS, Limits

_NAMES = {"deployment": "deployment", "endpoint": "name"}
"""Labels that every endpoint has, and the fields that they stand for."""


class Selection(NamedTuple):
    """Endpoints that will do, by the labels of their deployments."""

    by: tuple[tuple[str, tuple[str, ...]], ...]
    """Labels, and their values that will do; all must hold."""

    def fits(self, endpoint: Endpoint) -> bool:
        """Whether an endpoint will do."""
        labels = endpoint.labels
        for label, values in self.by:  # asked for every endpoint of every decision: no generator
            own = _NAMES.get(label)
            if (labels.get(label) if own is None else getattr(endpoint, own)) not in values:
                return False
        return True

    def may_fit(self, deployment: Deployment, pools: Mapping[str, Pool]) -> bool:
        """Whether an endpoint of a scaled deployment, which is not there yet, may do."""
        pool = None if deployment.scaling is None else pools.get(deployment.scaling.pool)
        labels = deployment.labels if pool is None else pool.labels_with(deployment.labels)
        return all(
            label == "endpoint" or (deployment.name if label == "deployment" else labels.get(label)) in values
            for label, values in self.by
        )


@dataclass(frozen=True, slots=True)
class EffectivePolicy:
    """What holds for every request of one key."""

    tenant: str
    name: str | None = None
    """The policy that the tenant refers to."""
    models: tuple[tuple[str, ...], ...] = ()
    """Lists of models that must each allow what is asked for: the tenant's, and the key's; none: all may."""
    profiles: tuple[str, ...] | None = None
    """Those allowed, the tenant's first choice first; None: all."""
    default_profile: str | None = None
    """Where a request names none; None: the model's."""
    weight: float = 1.0
    priority: Priority = "standard"
    deadline_s: float | None = None
    """The longest a request may take; None: as long as any."""
    limits: Limits = NO_LIMITS
    selection: Selection | None = None
    """Endpoints that may serve the requests; None: any."""
    fallbacks: tuple[Fallback, ...] = ()
    kv_isolation: KvIsolation = "shared"

    @property
    def isolation_class(self) -> str:
        """Requests of one class may count on what the others left in KV caches; "" is everybody's."""
        return self.tenant if self.kv_isolation == "tenant" else ""

    def allows(self, model: Model, adapter: Adapter | None = None, asked: str | None = None) -> bool:
        """Whether the model, or the adapter of it, may be used when asked for by the name `asked`."""
        return not self.models or all(may_use(allowed, model, adapter, asked) for allowed in self.models)

    def allows_profile(self, profile: str) -> bool:
        """Whether requests may ask for it."""
        return self.profiles is None or profile in self.profiles

    def profile_for(self, model: Model) -> str:
        """The profile of requests that name none: their first choice, or else the first that is allowed."""
        first_choice = self.default_profile or model.default_profile
        if not self.profiles or first_choice in self.profiles:
            return first_choice
        return self.profiles[0]

    def fallbacks_for(self, model: Model, cause: str) -> Iterator[Fallback]:
        """What stands in, in turn, for a model that cannot answer because of `cause`."""
        for fallback in self.fallbacks:
            if cause in fallback.causes and (fallback.models is None or model.name in fallback.models):
                yield fallback


def effective(tenant: Tenant, key: ApiKey, policy: Policy | None) -> EffectivePolicy:
    """What holds for requests with `key`; `policy` is the one that `tenant` refers to."""
    said: tuple[Terms, ...] = (tenant,) if policy is None else (tenant, policy)
    allowed = _first(said, "allowed_models")
    selectors = _first(said, "selectors")
    profiles = _both(_first(said, "allowed_profiles"), key.profiles)
    return EffectivePolicy(
        tenant=tenant.name,
        name=tenant.policy,
        models=tuple(names for names in (allowed, key.models) if names is not None),
        profiles=profiles,
        default_profile=_first(said, "default_profile"),
        weight=_first(said, "weight") or 1.0,
        priority=_first(said, "priority") or "standard",
        deadline_s=_first(said, "deadline_s"),
        limits=Limits(*(_first(said, limit) for limit in Limits._fields)),
        selection=Selection(tuple(sorted(selectors.items()))) if selectors else None,
        fallbacks=_first(said, "fallbacks") or (),
        kv_isolation=_first(said, "kv_isolation") or "shared",
    )


def _first(said: Sequence[Terms], term: str) -> Any:
    """What is said of a term, by the first who says anything."""
    return next((value for terms in said if (value := getattr(terms, term)) is not None), None)


def _both(tenants: tuple[str, ...] | None, keys: tuple[str, ...] | None) -> tuple[str, ...] | None:
    if tenants is None or keys is None:
        return keys if tenants is None else tenants
    return tuple(profile for profile in tenants if profile in keys)
