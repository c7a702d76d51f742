"""Adapters: the LoRA adapters of the registry as requests carry them, read off the event loop.

An adapter's task id is a digest of its tensors, so that other weights under the same name have another id
and no engine answers with those it has cached. Ids stay known; the tensors themselves, wanted only where an
engine must be sent them, are kept within `max_bytes`, the least recently used going first.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple, TypeVar

from msgspec.structs import replace

from inference.errors import AdapterError
from inference.lora import CONFIG_FILE, WEIGHTS_FILE, load_adapter
from inference.request import Lora, LoraWeights, RawTensor
from model_registry.entities import Adapter

RECHECK_FILES_AFTER_S = 2.0
_log = logging.getLogger(__name__)
T = TypeVar("T")
_Stamp = tuple[tuple[int, int] | None, ...]


class _Loaded(NamedTuple):
    """What one reading of a folder found."""

    task_id: int
    weights: LoraWeights
    stamp: _Stamp


class _Known:
    """What is remembered of a folder without its tensors."""

    __slots__ = ("checked_s", "stamp", "task_id")

    def __init__(self, loaded: _Loaded) -> None:
        self.task_id = loaded.task_id
        self.stamp = loaded.stamp
        self.checked_s = time.monotonic()

    def is_due(self) -> bool:
        """Whether the files must be looked at again; whoever is told so does it."""
        now_s = time.monotonic()
        if now_s - self.checked_s < RECHECK_FILES_AFTER_S:
            return False
        self.checked_s = now_s
        return True


class Adapters:
    """Every adapter that was asked for; owned by one event loop."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="adapter")
        self._known: dict[str, _Known] = {}
        self._weights: OrderedDict[int, LoraWeights] = OrderedDict()
        self._loading: dict[str, asyncio.Future[_Loaded]] = {}

    @property
    def held_bytes(self) -> int:
        """Bytes of the tensors kept."""
        return sum(map(_size, self._weights.values()))

    def by_name(self, adapter: Adapter) -> Lora:
        """For servers that have the adapter themselves; its files are not looked at."""
        return _lora(adapter, _digest(adapter.full_name, adapter.lora_name, adapter.server_path))

    async def identify(self, adapter: Adapter) -> Lora:
        """The adapter without its weights. Raises AdapterError, naming the file, when it cannot be read.

        Files that changed are read again; while they cannot be, the adapter stays what it was.
        """
        if adapter.path is None:
            return self.by_name(adapter)
        known = self._known.get(adapter.path)
        if known is None:
            return _lora(adapter, (await self._load(adapter.path)).task_id)
        if known.is_due() and await self._run(_stamp, adapter.path) != known.stamp:
            try:
                return _lora(adapter, (await self._load(adapter.path)).task_id)
            except AdapterError as error:
                _log.warning(
                    "changed adapter ignored: it cannot be read",
                    extra={"adapter": adapter.full_name, "detail": str(error)},
                )
        return _lora(adapter, known.task_id)

    async def load(self, adapter: Adapter) -> Lora:
        """The adapter with its weights, as they are now. Raises AdapterError."""
        if adapter.path is None:
            raise AdapterError(
                f"adapter {adapter.full_name!r} has no `path`: set it to the folder with {CONFIG_FILE} and "
                f"{WEIGHTS_FILE}, so that the gateway can send it to the engine"
            )
        known = self._known.get(adapter.path)
        weights = None if known is None else self._weights.get(known.task_id)
        if known is None or weights is None:
            loaded = await self._load(adapter.path)
            return replace(_lora(adapter, loaded.task_id), weights=loaded.weights)
        self._weights.move_to_end(known.task_id)
        return replace(_lora(adapter, known.task_id), weights=weights)

    def retain(self, adapters: Collection[Adapter]) -> None:
        """Forget what is of no adapter any more."""
        for path in self._known.keys() - {adapter.path for adapter in adapters}:
            del self._known[path]
        wanted = {known.task_id for known in self._known.values()}
        for task_id in self._weights.keys() - wanted:
            del self._weights[task_id]

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _load(self, path: str) -> _Loaded:
        """Read a folder, once for all that ask meanwhile."""
        loading = self._loading.get(path)
        if loading is None:
            loading = self._loading[path] = asyncio.ensure_future(self._run(_read, path))
            loading.add_done_callback(lambda done: self._took(path, done))
        return await asyncio.shield(loading)

    def _run(self, function: Callable[[str], T], path: str) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._pool, function, path)

    def _took(self, path: str, loading: asyncio.Future[_Loaded]) -> None:
        del self._loading[path]
        if loading.cancelled() or loading.exception() is not None:
            return
        loaded = loading.result()
        self._known[path] = _Known(loaded)
        self._weights[loaded.task_id] = loaded.weights
        self._weights.move_to_end(loaded.task_id)
        held = self.held_bytes
        while held > self._max_bytes:
            held -= _size(self._weights.popitem(last=False)[1])


def _read(path: str) -> _Loaded:
    stamp = _stamp(path)
    tensors = load_adapter(Path(path))
    weights, config = tensors.weights.tobytes(), tensors.config.tobytes()
    return _Loaded(
        _digest(weights, config),
        LoraWeights(RawTensor(tensors.weights.shape, weights), RawTensor(tensors.config.shape, config)),
        stamp,
    )


def _stamp(path: str) -> _Stamp:
    """Modification time in nanoseconds and size of the folder's files; None where absent."""
    found: list[tuple[int, int] | None] = []
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        try:
            status = (Path(path) / name).stat()
        except OSError:
            found.append(None)
        else:
            found.append((status.st_mtime_ns, status.st_size))
    return tuple(found)


def _digest(*parts: bytes | str | None) -> int:
    """64 bits that stand for `parts`."""
    digest = blake2b(digest_size=8)
    for part in parts:
        data = part.encode() if isinstance(part, str) else part or b""
        digest.update(b"%d:" % len(data))
        digest.update(data)
    return int.from_bytes(digest.digest(), "big")


def _lora(adapter: Adapter, task_id: int) -> Lora:
    return Lora(task_id, adapter.lora_name or adapter.name, adapter.server_path or adapter.path)


def _size(weights: LoraWeights) -> int:
    return len(weights.weights.data) + len(weights.config.data)
