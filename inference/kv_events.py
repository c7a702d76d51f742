"""KV events: what a model server tells of the blocks that enter and leave its KV cache.

`trtllm-serve` answers `POST /kv_cache_events` with all events since it was last asked, and forgets them: one
reader at a time gets them whole. Its engine must be started with `kv_cache_config.event_buffer_max_size`
above 0; a buffer that overflows drops the oldest, which the ids then show.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Protocol

import aiohttp
import msgspec

from inference.errors import ProtocolError, ServerTimeoutError, ServerUnreachableError
from model_registry.entities import Endpoint

_TIMEOUT_S = 10.0
"""A server that has no events waits a while for some before it says so; 2 s in TensorRT-LLM 1.2."""


class Token(msgspec.Struct):
    """One token of a block; `token_extra_id` is not 0 where it stands for part of an image or the like."""

    token_id: int
    token_extra_id: int = 0


class StoredBlock(msgspec.Struct):
    """A block by the engine's own hash."""

    block_hash: int
    tokens: list[Token]


class Created(msgspec.Struct, tag="created"):
    """The cache is new, and empty."""


class Stored(msgspec.Struct, tag="stored"):
    """Blocks can be reused from now on, each behind the one before it."""

    parent_hash: int | None
    """The block before the first of them; None: it begins a prompt."""
    blocks: list[StoredBlock]


class Removed(msgspec.Struct, tag="removed"):
    """Blocks are gone."""

    block_hashes: list[int]


class Updated(msgspec.Struct, tag="updated"):
    """A block moved between the cache's levels, or has another priority; it can be reused as before."""


class KvEvent(msgspec.Struct):
    """One event; those of one rank are numbered without a gap."""

    event_id: int
    data: Created | Stored | Removed | Updated
    window_size: int = 0
    """Attention window of the layers whose cache this is."""
    attention_dp_rank: int | None = None


_decode = msgspec.json.Decoder(list[KvEvent]).decode


class KvEventSource(Protocol):
    """Where the events of a kind of server come from."""

    async def read(self, endpoint: Endpoint) -> Sequence[KvEvent]:
        """Events since the last time. Raises InferenceError where the server does not tell."""


class TrtllmServe:
    """`trtllm-serve`, over a connection that is kept."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def read(self, endpoint: Endpoint) -> Sequence[KvEvent]:
        """As `KvEventSource.read`."""
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S))
        url = f"{endpoint.http.rstrip('/').removesuffix('/v1')}/kv_cache_events"
        key = None if endpoint.api_key_env is None else os.environ.get(endpoint.api_key_env)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        try:
            async with self._session.post(url, headers=headers) as response:
                status, body = response.status, await response.read()
        except TimeoutError as error:
            raise ServerTimeoutError(f"{url} did not answer within {_TIMEOUT_S:g} s") from error
        except aiohttp.ClientError as error:
            raise ServerUnreachableError(f"{url} cannot be reached: {error}") from error
        if status != 200:
            raise ProtocolError(
                f"{url} answers {status}: leave `kv_events` out of the deployment unless its servers are "
                "trtllm-serve with kv_cache_config.event_buffer_max_size above 0"
            )
        return parsed(body)


def parsed(body: bytes) -> Sequence[KvEvent]:
    """The events in an answer. Raises ProtocolError."""
    try:
        return _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"not the KV events of trtllm-serve: {error}") from error
