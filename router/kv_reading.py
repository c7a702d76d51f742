"""KvReading: the task of a gateway process that keeps its KV feeds. Nothing that routes waits for it.

A server forgets its events as it tells them, so that one process at a time reads each server: whose turn it
is, is a lease in Redis, and what it reads it tells the others through a stream there, as hashes. That costs a
server one reader however many gateway processes there are, and Redis a few kB per second of a busy engine.
Without Redis the last reader goes on reading for itself; should two read one server for a while, both notice
by the numbers of the events that they miss some.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Protocol

from inference.errors import InferenceError
from inference.kv_events import KvEventSource
from model_registry.entities import Endpoint
from model_registry.errors import RegistryError
from model_registry.kv_feed.store import KvFeedStore, Turn
from router.engine_blocks import packed, unpacked
from router.kv_feeds import KvFeed, KvFeeds

_log = logging.getLogger(__name__)
_LEASE_S = 5.0
_ASK_S = 1.0
"""How often a process that does not read a server asks whether it may."""
_RETRY_S = 2.0
_BEGIN = "0"


class KvObserver(Protocol):
    """Learns what was heard, for metrics."""

    def kv_events(self, endpoint: str, events: int) -> None: ...

    def kv_gaps(self, endpoint: str, gaps: int) -> None: ...


class KvReading:
    """One per gateway process; `run` is its supervised task. `worker` is unlike every other's name."""

    def __init__(
        self,
        sources: Mapping[str, KvEventSource],
        store: KvFeedStore,
        feeds: KvFeeds,
        endpoints: Callable[[], Iterable[Endpoint]],
        observer: KvObserver,
        worker: str,
        pause_s: float,
    ) -> None:
        """`sources` by `Endpoint.kv_events`; `pause_s` lies between two readings of one server."""
        self._sources = sources
        self._store = store
        self._feeds = feeds
        self._endpoints = endpoints
        self._observer = observer
        self._worker = worker
        self._pause_s = pause_s
        self._loop = asyncio.get_running_loop()
        self._keeping: dict[str, asyncio.Task[None]] = {}
        self._asked_s: dict[str, float] = {}
        """By server, when its turn was last asked for."""
        self._after: dict[str, str] = {}
        """By server, where to go on with what its reader tells."""
        self.reads: set[str] = set()
        """Servers whose events this process reads."""

    async def run(self) -> None:
        """Read, or follow who reads, until cancelled; then leave the reading to others."""
        try:
            while True:
                self._retain()
                try:
                    await self._follow()
                except RegistryError:
                    await asyncio.sleep(_ASK_S)
        finally:
            for task in self._keeping.values():
                task.cancel()
            await asyncio.gather(*self._keeping.values(), return_exceptions=True)
            for server in self.reads:
                with suppress(RegistryError):
                    await self._store.turn(server, self._worker, 0.0)

    def _servers(self) -> dict[str, Endpoint]:
        return {
            one.http: one
            for one in self._endpoints()
            if one.kv_events is not None and one.state in {"ready", "draining"}
        }

    def _retain(self) -> None:
        servers = self._servers()
        for server in self._keeping.keys() - servers.keys():
            self._keeping.pop(server).cancel()
            self._after.pop(server, None)
            self.reads.discard(server)
        self._feeds.retain(servers)
        for server, endpoint in servers.items():
            task = self._keeping.get(server)
            if task is None or task.done():
                if task is not None and (error := task.exception()) is not None:
                    _log.error("reading KV events failed", extra={"endpoint": endpoint.name}, exc_info=error)
                self._keeping[server] = self._loop.create_task(self._keep(server), name=f"KV events {server}")

    async def _keep(self, server: str) -> None:
        """Read one server's events whenever it is this process's turn."""
        while (endpoint := self._servers().get(server)) is not None:
            feed = self._feeds.open(endpoint, self._endpoints())
            if await self._may_read(server, endpoint, feed):
                await asyncio.sleep(self._pause_s if await self._read(server, endpoint, feed) else _RETRY_S)
            else:
                await asyncio.sleep(_ASK_S)

    async def _may_read(self, server: str, endpoint: Endpoint, feed: KvFeed) -> bool:
        """Whether it is this process's turn; all that was told before is known by then."""
        if server in self.reads and self._loop.time() - self._asked_s[server] < _ASK_S:
            return True
        turn = await self._turn(server)
        if not turn.reads:
            self.reads.discard(server)
            if turn.age_s is not None:
                feed.heard(self._loop.time(), turn.age_s)
            return False
        if server not in self.reads:
            with suppress(RegistryError):
                while await self._take_over({server: self._after.get(server, _BEGIN)}):
                    pass
            self.reads.add(server)
            _log.info("this process reads the KV events", extra={"endpoint": endpoint.name})
        return True

    async def _turn(self, server: str, change: bytes = b"") -> Turn:
        self._asked_s[server] = self._loop.time()
        try:
            return await self._store.turn(server, self._worker, _LEASE_S, change)
        except RegistryError:
            return Turn(server in self.reads, None)

    async def _read(self, server: str, endpoint: Endpoint, feed: KvFeed) -> bool:
        """Read once; whether that went well."""
        assert endpoint.kv_events is not None
        try:
            events = await self._sources[endpoint.kv_events].read(endpoint)
        except InferenceError as error:
            if self._loop.time() - feed.heard_s > _RETRY_S:
                _log.warning("no KV events", extra={"endpoint": endpoint.name, "error": str(error)})
            return False
        gaps, change = feed.blocks.gaps, feed.blocks.read(events)
        feed.heard(self._loop.time())
        self._observer.kv_events(endpoint.name, len(events))
        self._count(endpoint, feed, gaps)
        if change is not None and not (await self._turn(server, packed(change))).reads:
            # Another process has the turn, and did not hear of this: what it tells follows something else.
            self.reads.discard(server)
            feed.start_over()
            self._after[server] = _BEGIN
        return True

    def _count(self, endpoint: Endpoint, feed: KvFeed, before: int) -> None:
        if feed.blocks.gaps > before:
            self._observer.kv_gaps(endpoint.name, feed.blocks.gaps - before)

    async def _follow(self) -> None:
        """Take over what the readers of other servers tell, for about a second."""
        following = {
            server: self._after.get(server, _BEGIN) for server in self._keeping if server not in self.reads
        }
        if following:
            await self._take_over(following, block_s=_ASK_S)
        else:
            await asyncio.sleep(_ASK_S)

    async def _take_over(self, after: Mapping[str, str], block_s: float | None = None) -> bool:
        """Take over what was told; whether there was anything."""
        endpoints = self._servers()
        told = await self._store.changes(after, block_s)
        for server, (last, changes) in told.items():
            endpoint = endpoints.get(server)
            if endpoint is None or self._after.get(server, _BEGIN) != after[server]:
                continue  # it is gone, or this was taken over meanwhile
            if server in self.reads:
                continue  # what this process told itself
            self._after[server] = last
            feed = self._feeds.open(endpoint, self._endpoints())
            gaps = feed.blocks.gaps
            for change in changes:
                try:
                    feed.blocks.follow(unpacked(change))
                except ValueError:  # of another version
                    continue
            feed.learned(self._loop.time())
            self._count(endpoint, feed, gaps)
        return bool(told)
