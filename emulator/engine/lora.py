"""LoRA adapters of one engine: their tensors read and checked, a cache of them, and their effect.

Layout of the tensors, as `examples/hf_lora_convert.py` of TensorRT-LLM writes them: one row per module
and layer. A row of `config` is (module id, layer, rank); the same row of `weights` holds the inward
matrix [rank, inputs], then the outward one [outputs, rank], already scaled by alpha / rank, each
flattened row by row, and zeros up to the width of the widest row. Checks and their words are those of
`cpp/tensorrt_llm/runtime/loraUtils.cpp` and `batch_manager/peftCacheManager.cpp`.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from emulator.engine.api import LoraTask
from emulator.engine.errors import LoraCacheFullError, LoraNotCachedError, RejectedRequestError
from emulator.engine.weights import Array, ModelConfig

_serials = itertools.count(1)


@dataclass(frozen=True, slots=True)
class LoraModule:
    """One module by TensorRT-LLM's id: the matrix of a layer it adds to, and which of its columns."""

    name: str
    target: str
    inputs: int
    outputs: int
    first_column: int = 0


def lora_modules(config: ModelConfig) -> Mapping[int, LoraModule]:
    """The modules of this network. `mlp_h_to_4h` is the gate of SwiGLU and `mlp_gate` its other half."""
    hidden, inner = config.hidden_size, config.intermediate_size
    query, kv = config.query_size, config.kv_size
    return {
        0: LoraModule("attn_qkv", "qkv", hidden, query + 2 * kv),
        1: LoraModule("attn_q", "qkv", hidden, query),
        2: LoraModule("attn_k", "qkv", hidden, kv, query),
        3: LoraModule("attn_v", "qkv", hidden, kv, query + kv),
        4: LoraModule("attn_dense", "output", query, hidden),
        5: LoraModule("mlp_h_to_4h", "gate_up", hidden, inner),
        6: LoraModule("mlp_4h_to_h", "down", inner, hidden),
        7: LoraModule("mlp_gate", "gate_up", hidden, inner, inner),
    }


@dataclass(frozen=True, slots=True)
class _Delta:
    """What one module adds: `columns` of the product get (x @ inward) @ outward."""

    columns: slice
    inward: Array
    outward: Array

    @property
    def size(self) -> int:
        return self.inward.size + self.outward.size


@dataclass(slots=True, eq=False)
class Adapter:
    """One adapter in memory. `users` counts the requests in flight that compute with it.

    `serial` differs for every load, so that keys and values computed with an adapter are never taken
    for those of another one that came later under the same task id.
    """

    task_id: int
    deltas: Mapping[tuple[int, str], list[_Delta]]
    serial: int = field(default_factory=lambda: next(_serials))
    users: int = 0

    @property
    def size_bytes(self) -> int:
        """Bytes in half precision, as the cache counts them; padding is not kept."""
        return 2 * sum(delta.size for deltas in self.deltas.values() for delta in deltas)

    def add(self, layer: int, target: str, x: Array, product: Array) -> None:
        """Adds to rows of a layer's product what the adapter makes of their inputs."""
        for delta in self.deltas.get((layer, target), ()):
            product[:, delta.columns] += (x @ delta.inward) @ delta.outward


class LoraCache:
    """Adapters by task id within `capacity_bytes`, the least recently used unused one goes first.

    May be called from any thread. Every `take` needs one `release`.
    """

    def __init__(self, config: ModelConfig, max_rank: int, capacity_bytes: int) -> None:
        self._config = config
        self._modules = lora_modules(config)
        self._max_rank = max_rank
        self._capacity_bytes = capacity_bytes
        self._lock = threading.Lock()
        self._adapters: OrderedDict[int, Adapter] = OrderedDict()

    def take(self, task: LoraTask) -> Adapter:
        """The adapter of a task, in use from now on; a cached id keeps the weights it has.

        Raises RejectedRequestError for tensors that do not fit, LoraNotCachedError when the id is
        unknown and no weights came, LoraCacheFullError when everything cached is in use.
        """
        self._check(task)
        with self._lock:
            adapter = self._adapters.get(task.task_id)
            if adapter is None:
                adapter = self._read(task)
                self._make_room(adapter)
                self._adapters[task.task_id] = adapter
            self._adapters.move_to_end(task.task_id)
            adapter.users += 1
            return adapter

    def release(self, adapter: Adapter) -> None:
        with self._lock:
            adapter.users -= 1

    def cached(self) -> list[int]:
        """Task ids in the cache, the next to be evicted first."""
        with self._lock:
            return list(self._adapters)

    def users(self) -> int:
        """Requests that hold an adapter."""
        with self._lock:
            return sum(adapter.users for adapter in self._adapters.values())

    def _make_room(self, adapter: Adapter) -> None:
        left = self._capacity_bytes - sum(other.size_bytes for other in self._adapters.values())
        for other in [other for other in self._adapters.values() if not other.users]:
            if adapter.size_bytes <= left:
                break
            del self._adapters[other.task_id]
            left += other.size_bytes
        if adapter.size_bytes > left:
            raise LoraCacheFullError(adapter.task_id)

    def _check(self, task: LoraTask) -> None:
        weights, config = task.weights, task.config
        if weights is None and config is None:
            return
        if weights is None or config is None:
            raise RejectedRequestError("Request for LoRA inference must have both lora_weights and lora_keys")
        if weights.ndim != 2:
            raise RejectedRequestError("Invalid shape for lora_weights tensor")
        if config.ndim != 2:
            raise RejectedRequestError("Invalid shape for lora_keys tensor")
        if len(config) != len(weights):
            raise RejectedRequestError("Expected dim1 lora_weights and lora_keys to have the same size")
        if config.shape[1] != 3:
            raise RejectedRequestError("Expected dim2 of lora_keys to have a size in [3, 4]")
        for module_id, layer, rank in config.tolist():
            self._check_row(module_id, layer, rank, weights.shape[1])

    def _check_row(self, module_id: int, layer: int, rank: int, width: int) -> None:
        if not 0 <= layer < self._config.num_hidden_layers:
            raise RejectedRequestError("Expected layerId to be in the range [0, numModelLayers)")
        if rank <= 0:
            raise RejectedRequestError("Expected adapterSize to be > 0")
        module = self._modules.get(module_id)
        if module is None:
            raise RejectedRequestError(f"lora module {module_id} not enabled for this model")
        if rank * (module.inputs + module.outputs) > width:
            raise RejectedRequestError(f"lora_weights has to few values for {module.name}")
        if rank > self._max_rank:
            raise RejectedRequestError(
                f"Invalid low_rank ({rank}). low_rank must be smaller than mMaxLowRank ({self._max_rank})"
            )

    def _read(self, task: LoraTask) -> Adapter:
        if task.weights is None or task.config is None:
            raise LoraNotCachedError(task.task_id)
        deltas: dict[tuple[int, str], list[_Delta]] = {}
        for (module_id, layer, rank), row in zip(task.config.tolist(), task.weights, strict=True):
            module = self._modules[module_id]
            deltas.setdefault((layer, module.target), []).append(_delta(module, rank, row))
        return Adapter(task.task_id, deltas)


def _delta(module: LoraModule, rank: int, row: Array) -> _Delta:
    middle, end = rank * module.inputs, rank * (module.inputs + module.outputs)
    return _Delta(
        columns=slice(module.first_column, module.first_column + module.outputs),
        inward=np.ascontiguousarray(row[:middle].reshape(rank, -1).T, dtype=np.float32),
        outward=np.ascontiguousarray(row[middle:end].reshape(-1, rank).T, dtype=np.float32),
    )
