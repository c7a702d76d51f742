"""Garbage collection of published engines: which ones nothing refers to any more. Pure."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Iterable
from typing import NamedTuple

from engine_builder.package.store import Published


class Verdict(NamedTuple):
    """What becomes of one engine, and why."""

    engine: Published
    removed: bool
    reason: str


def collect(
    published: Iterable[Published], referred: Collection[str], now: datetime.datetime, keep_days: float
) -> list[Verdict]:
    """Engines that no name in `referred` is of go, once they are older than `keep_days`."""
    verdicts = []
    for engine in published:
        age_days = (now - engine.manifest.built_at).total_seconds() / 86_400
        if engine.manifest.name in referred:
            verdicts.append(Verdict(engine, False, "a deployment refers to it"))
        elif age_days < keep_days:
            verdicts.append(Verdict(engine, False, f"built {age_days:.1f} days ago"))
        else:
            verdicts.append(Verdict(engine, True, "no deployment refers to it"))
    return verdicts
