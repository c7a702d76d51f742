"""Encoder: a trained model's hidden states as embeddings, many inputs in one padded pass.

The weights are those of the chat models, so attention looks back only, as they were trained; what comes out
is deterministic and says something about the text, which is all that an embedding here must do.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from emulator.engine.transformer import MASKED, rms_norm, rope_tables, rotate, silu_product
from emulator.engine.weights import Array, LayerWeights, Weights

Mask = NDArray[np.bool_]
ROWS = 8
"""Inputs computed at a time, so that what passes between layers stays in the processor's cache."""


class Encoder:
    """Runs one set of weights without a cache."""

    def __init__(self, weights: Weights) -> None:
        self.config = weights.config
        self._weights = weights
        self._cosine, self._sine = rope_tables(weights.config)

    def embed(self, inputs: Sequence[Sequence[int]]) -> Array:
        """One normalised vector per list of token ids: [inputs, hidden]."""
        ids, mask = padded(inputs)
        return pooled(self.hidden(ids, mask), mask)

    def hidden(self, ids: NDArray[np.integer], mask: Mask) -> Array:
        """Hidden states [inputs, tokens, hidden] of ids [inputs, tokens]; padding is on the right."""
        states = np.zeros((*ids.shape, self.config.hidden_size), np.float32)
        for start in range(0, len(ids), ROWS):
            rows = slice(start, start + ROWS)
            longest = int(mask[rows].sum(axis=1).max())
            states[rows, :longest] = self._forward(ids[rows, :longest], mask[rows, :longest])
        return states

    def _forward(self, ids: NDArray[np.integer], mask: Mask) -> Array:
        inputs, tokens = ids.shape
        x: Array = self._weights.embed[ids.reshape(-1)]
        hidden = _unseen(mask)
        for layer in self._weights.layers:
            x = x + self._attend(layer, x, hidden, inputs, tokens)
            normed = rms_norm(x, layer.mlp_norm, self.config.rms_norm_eps)
            x += silu_product(normed @ layer.gate_up) @ layer.down
        states = rms_norm(x, self._weights.final_norm, self.config.rms_norm_eps)
        return states.reshape(inputs, tokens, -1)

    def _attend(self, layer: LayerWeights, x: Array, unseen: Array, inputs: int, tokens: int) -> Array:
        config = self.config
        heads, kv_heads, size = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        normed = rms_norm(x, layer.attention_norm, config.rms_norm_eps)
        qkv = (normed @ layer.qkv).reshape(inputs, tokens, -1, size)
        cosine, sine = self._cosine[:tokens, None], self._sine[:tokens, None]
        turned = rotate(qkv[:, :, : heads + kv_heads], cosine, sine)
        grouped = turned[:, :, :heads].reshape(inputs, tokens, kv_heads, -1, size).transpose(0, 2, 3, 1, 4)
        keys = turned[:, :, heads:].transpose(0, 2, 1, 3)[:, :, None]
        values = qkv[:, :, heads + kv_heads :].transpose(0, 2, 1, 3)[:, :, None]
        scores = grouped @ keys.swapaxes(-1, -2) * np.float32(size**-0.5) + unseen
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        scores /= scores.sum(axis=-1, keepdims=True)
        mixed = (scores @ values).transpose(0, 3, 1, 2, 4).reshape(inputs * tokens, -1)
        attended: Array = mixed @ layer.output
        return attended


def padded(inputs: Sequence[Sequence[int]]) -> tuple[NDArray[np.int64], Mask]:
    """Ids and mask [inputs, longest], padded on the right with 0."""
    lengths = np.array([len(one) for one in inputs])
    mask = np.arange(lengths.max())[None, :] < lengths[:, None]
    ids = np.zeros(mask.shape, np.int64)
    ids[mask] = np.concatenate([np.asarray(one, np.int64) for one in inputs])
    return ids, mask


def pooled(states: Array, mask: Mask) -> Array:
    """The mean of the states that `mask` keeps, of length 1."""
    weights = mask[:, :, None].astype(np.float32)
    kept: Array = np.maximum(weights.sum(axis=1), 1.0)
    mean: Array = (states * weights).sum(axis=1) / kept
    length: Array = np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
    return mean / length


def _unseen(mask: Mask) -> Array:
    """Added to the scores [inputs, 1, 1, tokens, tokens]: what comes later and what is padding."""
    tokens = mask.shape[1]
    later = np.triu(np.ones((tokens, tokens), bool), 1)
    hidden = later[None] | ~mask[:, None, :]
    return np.where(hidden, MASKED, np.float32(0.0))[:, None, None]
