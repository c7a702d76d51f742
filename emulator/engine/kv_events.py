"""What enters and leaves the KV cache, kept until somebody reads it; in TensorRT-LLM's shapes.

The step thread writes, any thread reads. A full buffer drops its oldest event, which the ids then show.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from typing import Any

_PRIORITY = 35
"""TensorRT-LLM's default retention priority."""
_WORD = 2**64 - 1


class KvEventBuffer:
    """Events of one cache of `blocks` blocks; `window` is the attention window, in tokens."""

    def __init__(self, most: int, blocks: int, window: int) -> None:
        self._lock = threading.Lock()
        self._events: deque[dict[str, Any]] = deque(maxlen=most)
        self._window = window
        self._next_id = 0
        self._last_stored: int | None = None
        """Name of the last block of the newest event, if blocks may still be added to that."""
        self._add({"type": "created", "num_blocks_per_cache_level": [blocks, 0]})

    def stored(self, parent: int, name: int, tokens: Sequence[int]) -> None:
        """A block can be reused from now on; the names are `BlockPool`'s."""
        block = {
            "type": "stored_block",
            "block_hash": block_hash(name),
            "tokens": [
                {"type": "unique_token", "token_id": int(token), "token_extra_id": 0} for token in tokens
            ],
            "cache_level": 0,
            "priority": _PRIORITY,
        }
        with self._lock:
            if self._events and self._last_stored == parent:
                self._events[-1]["data"]["blocks"].append(block)
            else:
                before = block_hash(parent) if parent > 0 else None
                self._add({"type": "stored", "parent_hash": before, "blocks": [block]})
            self._last_stored = name

    def removed(self, name: int) -> None:
        """A block is gone."""
        with self._lock:
            self._add({"type": "removed", "block_hashes": [block_hash(name)]})
            self._last_stored = None

    def drain(self) -> list[dict[str, Any]]:
        """All events since the last time."""
        with self._lock:
            events = list(self._events)
            self._events.clear()
            self._last_stored = None
        return events

    def _add(self, data: dict[str, Any]) -> None:
        self._events.append({"event_id": self._next_id, "data": data, "window_size": self._window})
        self._next_id += 1


def block_hash(name: int) -> int:
    """A word of 64 bits, as an engine's hashes are."""
    return (name * 0x9E3779B97F4A7C15) & _WORD
