"""Acts: what can be done about replicas, and what deciding on them rests on beside the registry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from model_registry.entities import Deployment
from model_registry.replicas import Replica


class Start(NamedTuple):
    """One more replica of it."""

    deployment: Deployment
    place: str | None
    reason: str


class TakeBack(NamedTuple):
    """It drains, and is wanted again."""

    replica: Replica
    reason: str


class Drain(NamedTuple):
    """No new requests; it stops when those under way have finished."""

    replica: Replica
    reason: str


class Stop(NamedTuple):
    """At once: it serves nobody."""

    replica: Replica
    reason: str


class GiveUp(NamedTuple):
    """It has failed; what is left of it goes."""

    replica: Replica
    reason: str


Act = Start | TakeBack | Drain | Stop | GiveUp


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of a replica beside its record."""

    endpoint: str | None = None
    """Its name; None: where it listens is not known yet."""
    ready: bool = False
    """The endpoint is registered as ready."""
    out_s: float = 0.0
    """For how long the endpoint has been seen not ready."""
    reason: str | None = None
    """The endpoint's."""
    drained: bool = False
    """An operator drains it: it serves nobody new, and finishes what it has, if it has come up at all."""
    lost: bool = False
    """The actuator does not find it."""
    removed: bool = False
    """Its server is not in its pool any more; nobody looks for it there."""


UNSEEN = Seen()


@dataclass(frozen=True, slots=True)
class Backoff:
    """How starts that failed hold up the next one."""

    failures: int = 0
    """In a row."""
    retry_at: float | None = None

    def holds_up(self, now_s: float) -> bool:
        """Whether the next start has to wait."""
        return self.failures > 0 and now_s < (self.retry_at or 0.0)


NEVER_FAILED = Backoff()
NO_BACKOFF: Mapping[str, Backoff] = MappingProxyType({})
