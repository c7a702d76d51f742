"""Reconcile: what to change so that the registered endpoints become what they should be. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from controller.config import ControllerConfig
from controller.targets import Observation, Target, endpoint_of, placeholder
from inference.schema import Schema
from model_registry.entities import Endpoint


@dataclass(frozen=True, slots=True)
class Register:
    """Store the endpoint as it is now, in place of what was stored under its name."""

    endpoint: Endpoint
    reason: str


@dataclass(frozen=True, slots=True)
class Remove:
    """The endpoint should no longer exist."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Renew:
    """The endpoint is as it should be; it only has to live on."""

    name: str


Action = Register | Remove | Renew


def observe(
    before: Observation, schema: Schema | None, error: str | None, config: ControllerConfig
) -> Observation:
    """The observation after one more look; `error` says why it failed."""
    if error is None:
        return Observation(schema, healthy=True)
    failures = before.failures + 1
    still_healthy = before.healthy and failures < config.unhealthy_after
    return Observation(before.schema, still_healthy, failures, None if still_healthy else error)


def reconcile(
    wanted: Mapping[str, Target],
    registered: Mapping[str, Endpoint],
    observed: Mapping[str, Observation],
) -> list[Action]:
    """The actions that make `registered` what `wanted` and `observed` say, by name."""
    unwanted = sorted(registered.keys() - wanted.keys())
    return [
        *(Remove(name, "no deployment asks for it") for name in unwanted),
        *(
            _action(target, registered.get(name), observed.get(name, Observation()))
            for name, target in sorted(wanted.items())
        ),
    ]


def _action(target: Target, present: Endpoint | None, seen: Observation) -> Action:
    desired = _desired(target, present, seen)
    if present == desired:
        return Renew(target.name)
    if present is None:
        return Register(desired, "new")
    if present.state != desired.state:
        return Register(desired, f"{present.state} -> {desired.state}")
    return Register(desired, "changed")


def _desired(target: Target, present: Endpoint | None, seen: Observation) -> Endpoint:
    if seen.healthy and seen.schema is not None:
        return endpoint_of(target, seen.schema)
    if seen.schema is not None:
        known = endpoint_of(target, seen.schema)
        return known.model_copy(update={"state": "unhealthy", "reason": seen.reason})
    if present is not None and seen.failures == 0:
        return present  # not looked at yet: another controller's word stands
    if present is not None and present.server_schema:
        return present.model_copy(update={"state": "unhealthy", "reason": seen.reason})
    return placeholder(target, seen.reason)
