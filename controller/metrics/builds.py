"""Metrics of engine builds: how many go on, and who could do them."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator
from typing import Final, NamedTuple

from prometheus_client.core import GaugeMetricFamily

from controller.metrics.families import gauge
from model_registry.build_jobs.store import BuildStore
from model_registry.errors import RegistryUnavailableError

log = logging.getLogger(__name__)

LOOK_S: Final = 5.0
"""Between two looks: builds take minutes, and scrapes come about as often."""


class BuildCounts(NamedTuple):
    """As of the latest look."""

    queued: int
    running: int
    builders: int
    """Those that are there."""


class BuildsSeen:
    """Looks at the builds of a registry from time to time; builds are not in its snapshot."""

    def __init__(self, store: BuildStore) -> None:
        self._store = store
        self.counts: BuildCounts | None = None
        """None: not known, as Redis does not answer."""

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Once."""
        try:
            states = Counter(one.state for one in await self._store.unfinished())
            builders = await self._store.builders()
        except RegistryUnavailableError as error:
            log.debug("builds not seen", extra={"reason": str(error)})
            self.counts = None
            return
        self.counts = BuildCounts(states["queued"], states["running"], sum(one.runs for one in builders))


def build_families(counts: BuildCounts | None) -> Iterator[GaugeMetricFamily]:
    """Of the whole fleet."""
    builds = gauge("enginehouse_builds", "Engine builds that have not ended, by state.", "state")
    builders = gauge("enginehouse_builders", "Builders that are there.")
    if counts is not None:
        builds.add_metric(("queued",), counts.queued)
        builds.add_metric(("running",), counts.running)
        builders.add_metric((), counts.builders)
    yield from (builds, builders)
