"""KvFeeds: what servers that publish KV events say is in their caches, with an age. One event loop's.

Where a feed is whole and fresh, what it says holds, and beside it only what was sent there in the last
seconds: a prompt's blocks are told of when they are computed. Where it is not, what it says adds to what
dispatches let believe.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from model_registry.entities import Endpoint
from router.engine_blocks import EngineBlocks

STALE_S = 10.0
"""A feed that was not heard for so long says nothing of what is not there."""
PREDICTED_S = 10.0
"""How long a dispatch is believed to have left its prompt in the cache of an engine that has not said so:
enough for the engine's own queue and the prompt's computing."""


class KvFeed:
    """What one server says."""

    __slots__ = ("blocks", "heard_s", "since_s")

    def __init__(self, block_tokens: int) -> None:
        self.blocks = EngineBlocks(block_tokens)
        self.heard_s = -math.inf
        """When the server was last read, by whichever process."""
        self.since_s = math.inf
        """Since when it is whole."""

    def start_over(self) -> None:
        """Forget all that was said."""
        self.blocks = EngineBlocks(self.blocks.block_tokens)
        self.since_s = math.inf

    def heard(self, now_s: float, age_s: float = 0.0) -> None:
        """The server was read `age_s` ago."""
        self.heard_s = max(self.heard_s, now_s - age_s)
        self.learned(now_s)

    def learned(self, now_s: float) -> None:
        """`blocks` have changed."""
        if not self.blocks.is_whole:
            self.since_s = math.inf
        elif self.since_s > now_s:
            self.since_s = now_s

    def holds_since_s(self, now_s: float) -> float | None:
        """Dispatches before this count for nothing beside what is told; None: they all count."""
        if self.since_s > now_s or now_s - self.heard_s > STALE_S:
            return None
        return now_s - PREDICTED_S


class KvFeeds:
    """Feeds by server, which is `Endpoint.http`: endpoints of several deployments may share one."""

    def __init__(self, block_tokens_of: Callable[[str, Iterable[Endpoint]], int]) -> None:
        """`block_tokens_of` gives the block size of a model, by its endpoints."""
        self._block_tokens_of = block_tokens_of
        self._feeds: dict[str, KvFeed] = {}
        self._known: tuple[Sequence[Endpoint], Sequence[tuple[str, KvFeed]]] | None = None

    def __bool__(self) -> bool:
        return bool(self._feeds)

    def open(self, endpoint: Endpoint, peers: Iterable[Endpoint]) -> KvFeed:
        """The feed of an endpoint's server; a new one once the blocks of its model, whose endpoints are
        among `peers`, have another size."""
        model = endpoint.model
        block_tokens = self._block_tokens_of(model, [peer for peer in peers if peer.model == model])
        feed = self._feeds.get(endpoint.http)
        if feed is None or feed.blocks.block_tokens != block_tokens:
            feed = self._feeds[endpoint.http] = KvFeed(block_tokens)
            self._known = None
        return feed

    def of(self, endpoint: Endpoint) -> KvFeed | None:
        """The feed of an endpoint's server, where there is one."""
        return self._feeds.get(endpoint.http) if endpoint.kv_events is not None else None

    def retain(self, servers: Iterable[str]) -> None:
        """Forget all other servers."""
        kept = set(servers)
        for server in [server for server in self._feeds if server not in kept]:
            del self._feeds[server]
            self._known = None

    def known(self, endpoints: Sequence[Endpoint]) -> Sequence[tuple[str, KvFeed]]:
        """Endpoints with a feed, by name; looked up once for the endpoints of one snapshot."""
        if self._known is None or self._known[0] is not endpoints:
            found = [(one.name, feed) for one in endpoints if (feed := self.of(one)) is not None]
            self._known = endpoints, found
        return self._known[1]
