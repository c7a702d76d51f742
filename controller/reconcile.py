"""Reconcile: from what deployments ask for and what was seen, what is to be changed, and why. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from controller.desired import Desired
from controller.observe import Observation
from model_registry.entities import Endpoint, EndpointState

NOT_WANTED = "its deployment no longer asks for it"
WANTED_AGAIN = "its deployment asks for it again"


@dataclass(frozen=True, slots=True)
class Register:
    """Store this endpoint, new or changed."""

    endpoint: Endpoint
    reason: str

    @property
    def name(self) -> str:
        """The endpoint's."""
        return self.endpoint.name


@dataclass(frozen=True, slots=True)
class Move:
    """Take a registered endpoint to another state, or give its state another reason."""

    name: str
    state: EndpointState
    reason: str


Action = Register | Move


def reconcile(
    desired: Mapping[str, Desired],
    observations: Mapping[str, Observation],
    registered: Mapping[str, Endpoint],
    failures: Mapping[str, int],
    unhealthy_after: int,
) -> list[Action]:
    """The actions that bring the registry in line; none for endpoints nothing new is known of.

    `failures`: failed looks in a row, the present one included.
    """
    actions: list[Action] = []
    for name, wanted in desired.items():
        present = registered.get(name)
        if wanted.drained is not None:
            actions += _drained(wanted.drained, present)
        elif present is not None and present.state == "draining":
            actions.append(Move(name, "gone", WANTED_AGAIN))
        else:
            patient = failures.get(name, 0) < unhealthy_after
            actions += _wanted(wanted, present, observations.get(name), patient)
    for name, endpoint in registered.items():
        if name not in desired and endpoint.state != "draining":
            actions.append(Move(name, "draining", NOT_WANTED))
    return actions


def _drained(reason: str, present: Endpoint | None) -> Iterator[Action]:
    """An operator drains it: it stays registered, and known for that, until they take it back."""
    if present is not None and (present.state, present.reason) != ("draining", reason):
        yield Move(present.name, "draining", reason)


def _wanted(
    wanted: Desired, present: Endpoint | None, seen: Observation | None, patient: bool
) -> Iterator[Action]:
    """An engine that may not serve takes its endpoint out at once, healthy or not, looked at or not."""
    refused = wanted.refusal(None if seen is None else seen.schema, present)
    if refused is not None and (seen is None or seen.healthy):
        yield from _refused(wanted, present, seen, refused)
    elif seen is not None:
        yield from (
            _healthy(wanted, present, seen)
            if seen.healthy
            else _failed(wanted, present, seen, patient and refused is None)
        )


def _refused(
    wanted: Desired, present: Endpoint | None, seen: Observation | None, reason: str
) -> Iterator[Action]:
    """Registered as what was recognised, so that it can be ready as soon as its engine may serve."""
    if seen is not None and seen.schema is not None:
        first_time = present is None or present.state == "starting"
        state: EndpointState = "starting" if first_time else "unhealthy"
        endpoint = wanted.endpoint(seen.schema).model_copy(update={"state": state, "reason": reason})
        if endpoint != present:
            yield Register(endpoint, reason)
    elif present is not None and present.state == "ready":
        yield Move(present.name, "unhealthy", reason)


def _healthy(wanted: Desired, present: Endpoint | None, seen: Observation) -> Iterator[Action]:
    if seen.schema is None:
        return
    endpoint = wanted.endpoint(seen.schema).model_copy(update={"state": "ready"})
    if endpoint != present:
        why = "recognised" if present is None or not present.server_schema else "recognised again"
        yield Register(endpoint, f"{why} as {endpoint.lane}, and ready")


def _failed(wanted: Desired, present: Endpoint | None, seen: Observation, patient: bool) -> Iterator[Action]:
    """A first failure is forgiven a ready endpoint that is as wanted: gateways have breakers of their own."""
    reason = seen.reason or "not ready"
    if present is not None and wanted.is_met_by(present):
        if present.state == "ready" and patient:
            return
        state: EndpointState = "starting" if present.state == "starting" else "unhealthy"
        if (present.state, present.reason) != (state, reason):
            yield Move(present.name, state, reason)
        return
    first_time = present is None or present.state == "starting"
    state = "starting" if first_time and not seen.schema_error else "unhealthy"
    endpoint = wanted.endpoint(seen.schema).model_copy(update={"state": state, "reason": reason})
    if endpoint != present:
        yield Register(endpoint, reason)
