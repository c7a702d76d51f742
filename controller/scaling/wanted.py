"""Wanted: what the autoscaler asks for, for those who place and start replicas."""

from __future__ import annotations

from typing import NamedTuple

from model_registry.replicas import Signal


class Wanted(NamedTuple):
    """One deployment's."""

    replicas: int
    reason: str
    """In words, for people."""
    signals: tuple[Signal, ...] = ()
    """What the decision went by."""
    leaving: tuple[str, ...] = ()
    """Names of its replicas, the one that should go first at the front."""
