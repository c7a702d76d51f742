"""Rooms: what residency decides by, and what it decides. Pure values.

Memory is in MiB, times in seconds of one clock, rates per second.
"""

from __future__ import annotations

from typing import Literal, NamedTuple


class Copy(NamedTuple):
    """One replica in a server's memory, or on its way in or out."""

    replica: str
    model: str
    """Its deployment."""
    mib: float
    """Measured, or what is thought of it until then."""
    state: Literal["loading", "ready", "leaving"] = "ready"
    busy: int = 0
    """Requests in flight there."""
    since_s: float = 0.0
    """When it came to this state."""
    target: str = ""
    """What it is called on its server; empty: as `model`."""

    @property
    def called(self) -> str:
        """A server has one copy of that name at most."""
        return self.target or self.model


class ServerRoom(NamedTuple):
    """One server: what it may hold, and what it holds."""

    name: str
    budget_mib: float
    copies: tuple[Copy, ...] = ()
    gpu: str | None = None
    """What servers share on which models are loaded one at a time; None: a GPU of its own."""
    used_mib: float | None = None
    """Measured; None: not known, the sum of its copies stands in."""
    open: bool = True
    """False: nothing comes in, for it is about to be restarted."""


class ModelNeed(NamedTuple):
    """One deployment that may live on these servers."""

    name: str
    mib: float
    load_s: float
    """From the decision to a ready copy."""
    wanted: int = 0
    """Copies that its load asks for now."""
    least: int = 0
    """Copies that it has whatever the load."""
    pinned: bool = False
    """What is in stays in."""
    waiting: int = 0
    """Requests that are held or queued for it."""
    oldest_s: float = 0.0
    """How long the first of them has waited."""
    target: str = ""
    """What it is called on servers; empty: as `name`."""
    failed: bool = False
    """Its last load failed, and is not tried again yet: what is in may stay, nothing more comes in."""

    @property
    def called(self) -> str:
        """What its copies are called."""
        return self.target or self.name


class Load(NamedTuple):
    """Bring a copy of `model` in."""

    model: str
    server: str
    reason: str


class Evict(NamedTuple):
    """Drain this copy, then take it out."""

    replica: str
    model: str
    server: str
    reason: str
