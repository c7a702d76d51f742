"""The port that actuators implement.

Every call may be made again, by another leader, after any crash: what is there already is taken over, what
is gone already is gone. The registry's record of a replica is written before the first call for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, Protocol, runtime_checkable

from model_registry.entities import Deployment, ServerRef
from model_registry.replicas import Replica


class ActuatorError(Exception):
    """What was asked did not happen; `str` says why, and what to do where that is known."""


class Running(NamedTuple):
    """A replica that listens; whether it answers is for probes to say."""

    server: ServerRef | None
    """None: nothing listens, and nothing has to answer before it counts as ready (dry run)."""
    handle: str
    """What the actuator knows it by from now on; empty: `found` tells nothing of it."""
    memory_mib: int | None = None
    """What it took of its server, where that can be measured."""


class Found(NamedTuple):
    """Something that is there, whatever the registry says."""

    replica: str
    """Its name by a mark that this registry's controllers gave it; empty where it carries none, as a model on
    a Triton."""
    handle: str
    place: str | None = None
    """The server it is on, where a record would say so."""
    target: str | None = None
    """What it is called there."""

    @property
    def key(self) -> str:
        """What tells it from all others of its pool."""
        return self.replica or key_on(self.place, self.target)


def key_on(place: str | None, target: str | None) -> str:
    """The key of what carries no mark; no replica's name is one."""
    return f"{target}@{place}"


class Listing(NamedTuple):
    """What one look at a pool has shown."""

    found: Sequence[Found]
    unheard: Mapping[str, str] = MappingProxyType({})
    """Servers of the pool that did not tell, and why: nothing is known of what is on them."""


class Actuator(Protocol):
    """Of one pool, for replicas that are addressed one by one."""

    async def start(self, replica: Replica, deployment: Deployment) -> Running:
        """Bring it up, or find it up, and return when it listens. Raises ActuatorError.

        Cancelled when it is no longer wanted: `stop` follows then.
        """

    async def stop(self, replica: Replica, deployment: Deployment | None) -> None:
        """Take it down and return when nothing of it is left. Raises ActuatorError.

        `deployment`: None where it was deleted meanwhile.
        """

    async def found(self) -> Listing:
        """All replicas of this pool that are there, wanted or not. Raises ActuatorError.

        Servers that do not answer in time keep nobody from hearing of the others.
        """

    async def close(self) -> None:
        """Let go of connections; replicas stay."""


class Member(NamedTuple):
    """One replica of a workload that somebody else places, as its discovery shows it."""

    handle: str
    server: ServerRef
    ready: bool
    terminating: bool = False
    """It is being taken down, whoever asked for that."""


@runtime_checkable
class Workload(Protocol):
    """Of one pool, where only the number can be set and somebody else (Kubernetes) places replicas."""

    def order(self, members: Sequence[Member]) -> tuple[str, ...] | None:
        """Handles in the order in which they go when the number falls; None: `scale` may choose. Pure."""

    async def scale(self, deployment: Deployment, replicas: int, leaving: Sequence[str]) -> None:
        """Set the number; `leaving`: handles of those that should go first. Raises ActuatorError.

        Where another autoscaler sets it, only say who should go first.
        """

    async def members(self, deployment: Deployment) -> Sequence[Member]:
        """Those that are there. Raises ActuatorError."""

    async def close(self) -> None:
        """Let go of connections."""
