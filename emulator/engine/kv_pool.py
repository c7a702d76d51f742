"""The keys and values of the paged KV cache: two arrays, addressed by block tables.

Layout [layer, block, head, slot, head_dim], so that gathering a request's blocks yields its heads
contiguous in memory. Owned by the engine's step thread.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from emulator.engine.weights import Array, ModelConfig

Index = NDArray[np.int64]


class KvPool:
    """Room for `blocks` blocks of keys and values in float32, allocated once."""

    def __init__(self, config: ModelConfig, blocks: int, tokens_per_block: int) -> None:
        self.tokens_per_block = tokens_per_block
        self.heads = config.num_key_value_heads
        self.head_dim = config.head_dim
        shape = (config.num_hidden_layers, blocks, self.heads, tokens_per_block, self.head_dim)
        self.keys = np.zeros(shape, dtype=np.float32)
        self.values = np.zeros(shape, dtype=np.float32)
        self._row_size = tokens_per_block * self.head_dim
        self._scratch = np.empty((2, 0), dtype=np.float32)

    def write(self, layer: int, blocks: Index, slots: Index, keys: Array, values: Array) -> None:
        """Stores keys and values [tokens, heads, head_dim] at (block, slot) of each token."""
        self.keys[layer][blocks, :, slots] = keys
        self.values[layer][blocks, :, slots] = values

    def rows(self, tables: Index) -> Index:
        """Row numbers [requests, heads, blocks] for `gather`, from block tables [requests, blocks]."""
        return tables[:, None, :] * self.heads + np.arange(self.heads)[None, :, None]

    def gather(self, layer: int, rows: Index) -> tuple[Array, Array]:
        """Keys and values [requests, heads, blocks * tokens_per_block, head_dim] of the rows.

        They lie in scratch memory that the next call overwrites.
        """
        needed = rows.size * self._row_size
        if needed > self._scratch.shape[1]:
            self._scratch = np.empty((2, needed), dtype=np.float32)
        shape = (*rows.shape[:2], rows.shape[2] * self.tokens_per_block, self.head_dim)
        keys, values = (
            self._take(pool[layer], rows, scratch[:needed]).reshape(shape)
            for pool, scratch in zip((self.keys, self.values), self._scratch, strict=True)
        )
        return keys, values

    def _take(self, pool: Array, rows: Index, scratch: Array) -> Array:
        """Copies rows of one layer; `clip` spares the check that makes NumPy copy twice."""
        out = scratch.reshape(-1, self._row_size)
        taken: Array = pool.reshape(-1, self._row_size).take(rows.reshape(-1), axis=0, out=out, mode="clip")
        return taken


def padded_tables(tables: Sequence[Sequence[int]], width: int) -> Index:
    """Block tables as one array [requests, width]; the padding points at block 0 and is masked later."""
    padded = np.zeros((len(tables), width), dtype=np.int64)
    for row, table in enumerate(tables):
        taken = table[:width]
        padded[row, : len(taken)] = taken
    return padded
