"""Watcher: keeps one process's snapshot of the registry current, and keeps it when Redis is away.

Changes are pushed (a blocking stream read) and applied one by one; whatever does not fit together, and
every new connection, makes it read everything anew. Users read `current`, which never waits.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Literal, Self

from model_registry import cache
from model_registry.cache import Cached
from model_registry.config import RegistryConfig
from model_registry.errors import RegistryUnavailableError
from model_registry.snapshot import Snapshot
from model_registry.store import RegistryStore
from model_registry.view import View

_log = logging.getLogger(__name__)

CACHE_DEBOUNCE_S = 0.5
"""Changes within this time are written to the cache file together."""
FIRST_BACKOFF_S = 0.05

Resync = Literal["connect", "gap", "missed", "unreadable"]


class Watcher:
    """Follows the registry from `start` to `close` (or inside `async with`).

    `on_change` is called on the event loop with every new snapshot; it must not block.
    """

    def __init__(
        self,
        store: RegistryStore,
        cache_path: Path | None = None,
        on_change: Callable[[Snapshot], None] | None = None,
        *,
        config: RegistryConfig | None = None,
    ) -> None:
        self._store = store
        self._cache_path = cache_path
        self._on_change = on_change
        self._config = config or RegistryConfig()
        self._view = View(carry_s=self._config.endpoint_ttl_s)
        self._published = self.current
        self._looked = False
        self.confirmed_at_s = -math.inf
        """Unix seconds at which the registry last agreed with `current`; -inf when it never did."""
        self._changed = asyncio.Event()
        self._unsaved = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.connected = False
        """Redis answered last time."""
        self.resyncs: Counter[Resync] = Counter()
        """How often everything was read anew, by reason."""

    @property
    def current(self) -> Snapshot:
        """The registry as last known; never waits. Empty and `stale` while nothing is known."""
        return self._view.snapshot

    def reader(self) -> Callable[[], Snapshot]:
        """`current` as a function without a frame of its own: gateways ask several times in every request."""
        return partial(attrgetter("_view.snapshot"), self)

    @property
    def held_back(self) -> str | None:
        """Why the registry's present content is not served; None in ordinary times."""
        return self._view.held_back

    @property
    def staleness_s(self) -> float:
        """Seconds since the registry last agreed with `current`; infinite when it never did."""
        return max(0.0, time.time() - self.confirmed_at_s)

    async def start(self) -> None:
        """Take a first look (Redis, else the cache file, else nothing) and follow from there."""
        await self._first_look()
        self._task = asyncio.create_task(self.run(), name="registry-watcher")

    async def close(self) -> None:
        """Stop following; the cache file is brought up to date."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._save_if_changed()
            if not self._task.cancelled() and (error := self._task.exception()) is not None:
                raise error

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def run(self) -> None:
        """Follow until cancelled. For a supervisor that owns the task; otherwise `start` does this."""
        if not self._looked:
            await self._first_look()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._keep_cache())
                tasks.create_task(self._follow())
        finally:
            self.connected = False
            self._save_if_changed()

    async def wait_for(self, version: int, timeout_s: float = 1.0) -> bool:
        """Wait until `current` is at least `version` and nothing is held back; False when it took longer."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.current.version < version or self.held_back is not None:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True

    # -- following ----------------------------------------------------------------------------------------

    async def _first_look(self) -> None:
        self._looked = True
        if self._cache_path is not None and (cached := cache.restore(self._cache_path)) is not None:
            self._view = View(cached.position, cached.objects, carry_s=self._config.endpoint_ttl_s)
            self.confirmed_at_s = cached.confirmed_at_s
            self._publish()
        try:
            await self._resync("connect")
        except RegistryUnavailableError as error:
            self._note_disconnect(error)

    async def _follow(self) -> None:
        failures = 0
        while True:
            try:
                if not self.connected:
                    await self._resync("connect")
                await self._step()
                failures = 0
            except RegistryUnavailableError as error:
                self._note_disconnect(error)
                pause_s = min(self._config.backoff_max_s, FIRST_BACKOFF_S * 2**failures)
                failures += 1
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))

    async def _step(self) -> None:
        """Take the next changes, or make sure that there were none."""
        try:
            records = await self._store.changes(self._view.position.last, self._config.block_s)
        except ValueError:
            _log.exception("change stream holds what is no change record")
            await self._resync("unreadable")
            await asyncio.sleep(self._config.backoff_max_s)
            return
        if not records:
            if await self._store.position() != self._view.position:
                await self._resync("missed")
        elif not self._view.follow(records):
            await self._resync("gap")
        self._view.tick(time.time())
        self._publish()
        self._note_confirmation()

    async def _resync(self, reason: Resync) -> None:
        contents = await self._store.contents()
        self.resyncs[reason] += 1
        was_held_back = self.held_back
        self._view.adopt(contents, time.time())
        self.connected = True
        self._publish()
        if self.held_back is not None and was_held_back is None:
            _log.error("registry content held back", extra={"reason": self.held_back})
        self._note_confirmation()

    def _publish(self) -> None:
        if self._published is self.current:
            return
        self._published = self.current
        self._changed.set()
        if not self.current.stale:
            self._unsaved.set()
        if self._on_change is not None:
            try:
                self._on_change(self.current)
            except Exception:
                _log.exception("a listener failed on a new snapshot")

    def _note_confirmation(self) -> None:
        if self.held_back is None:
            self.confirmed_at_s = time.time()

    def _note_disconnect(self, error: RegistryUnavailableError) -> None:
        if self.connected:
            _log.warning(
                "registry away; the last snapshot stays in service",
                extra={"version": self.current.version, "error": str(error)},
            )
        self.connected = False

    # -- the cache file -----------------------------------------------------------------------------------

    async def _keep_cache(self) -> None:
        while True:
            await self._unsaved.wait()
            await asyncio.sleep(CACHE_DEBOUNCE_S)
            await asyncio.to_thread(self._save, self._take_unsaved())

    def _save_if_changed(self) -> None:
        if self._unsaved.is_set():
            self._save(self._take_unsaved())

    def _take_unsaved(self) -> Cached:
        self._unsaved.clear()
        return Cached(self._view.basis, self._view.objects, self.confirmed_at_s)

    def _save(self, cached: Cached) -> None:
        if self._cache_path is None:
            return
        try:
            cache.save(self._cache_path, cached)
        except OSError as error:
            path = str(self._cache_path)
            _log.warning("registry cache not written", extra={"path": path, "error": str(error)})
