"""Probe: one feature, asked of a lane. It passes only when it has seen the feature's effect."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tests.conformance.ask import Ask


class Probe(NamedTuple):
    group: str
    name: str
    run: Callable[[Ask], None]
    """Raises RefusedError where the lane refuses, AssertionError where the feature has no effect."""


Decorator = Callable[[Callable[[Ask], None]], Callable[[Ask], None]]


def probes() -> tuple[list[Probe], Callable[[str, str], Decorator]]:
    """A list, and what adds a function to it under a group and a name."""
    found: list[Probe] = []

    def probe(group: str, name: str) -> Decorator:
        def add(run: Callable[[Ask], None]) -> Callable[[Ask], None]:
            found.append(Probe(group, name, run))
            return run

        return add

    return found, probe
