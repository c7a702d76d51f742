"""The transformer as training sees it: loss and hand-written gradients over padded batches.

The same network as `emulator.engine.transformer`, without a cache; tests hold the two together.
Shapes: B sequences, T tokens, N = B*T rows, d hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emulator.engine.transformer import rope_tables
from emulator.engine.weights import Array, ModelConfig

Arrays = dict[str, Array]


@dataclass(frozen=True, slots=True)
class Batch:
    """Token ids [B, T], the ids that follow them, and how much each prediction counts (0 = padding)."""

    tokens: NDArray[np.int64]
    targets: NDArray[np.int64]
    weights: Array


@dataclass(slots=True)
class _Saved:
    """What one layer's backward pass needs of its forward pass."""

    x: Array
    attention_scale: Array
    queries: Array
    keys: Array
    values: Array
    probabilities: Array
    mixed: Array
    x_middle: Array
    mlp_scale: Array
    gate: Array
    up: Array
    sigmoid: Array


class Network:
    """Loss and gradients for a configuration; holds no parameters of its own."""

    def __init__(self, config: ModelConfig) -> None:
        self.config = config
        self._cosine, self._sine = rope_tables(config)

    def loss(self, parameters: Arrays, batch: Batch) -> tuple[float, Arrays]:
        """Weighted mean cross-entropy in nats per token, and its gradient for every parameter."""
        x, saved = self._forward(parameters, batch.tokens)
        normed, scale = _norm(x, parameters["final_norm"], self.config.rms_norm_eps)
        logits = normed @ parameters["embed"].T
        value, d_logits = _cross_entropy(logits, batch)
        gradients: Arrays = {"embed": d_logits.T @ normed}
        d_x, gradients["final_norm"] = _norm_backward(
            d_logits @ parameters["embed"], x, scale, parameters["final_norm"]
        )
        for layer in reversed(range(self.config.num_hidden_layers)):
            d_x = self._backward(layer, parameters, saved[layer], d_x, gradients, batch.tokens.shape)
        np.add.at(gradients["embed"], batch.tokens.reshape(-1), d_x)
        return value, gradients

    def logits(self, parameters: Arrays, tokens: NDArray[np.int64]) -> Array:
        """Logits [B, T, vocab] of token ids [B, T]."""
        x, _ = self._forward(parameters, tokens)
        normed, _ = _norm(x, parameters["final_norm"], self.config.rms_norm_eps)
        flat: Array = normed @ parameters["embed"].T
        return flat.reshape(*tokens.shape, -1)

    def _forward(self, parameters: Arrays, tokens: NDArray[np.int64]) -> tuple[Array, list[_Saved]]:
        x = parameters["embed"][tokens.reshape(-1)]
        saved: list[_Saved] = []
        for layer in range(self.config.num_hidden_layers):
            x, kept = self._layer(f"layers.{layer}.", parameters, x, tokens.shape)
            saved.append(kept)
        return x, saved

    def _layer(
        self, prefix: str, parameters: Arrays, x: Array, shape: tuple[int, ...]
    ) -> tuple[Array, _Saved]:
        epsilon = self.config.rms_norm_eps
        normed, attention_scale = _norm(x, parameters[prefix + "attention_norm"], epsilon)
        queries, keys, values = self._split(normed @ parameters[prefix + "qkv"], shape)
        scores = queries @ keys.transpose(0, 1, 2, 4, 3)
        scores *= self.config.head_dim**-0.5
        probabilities = _causal_softmax(scores)
        mixed = self._join(probabilities @ values)
        x_middle = x + mixed @ parameters[prefix + "output"]
        normed, mlp_scale = _norm(x_middle, parameters[prefix + "mlp_norm"], epsilon)
        gate, up = np.split(normed @ parameters[prefix + "gate_up"], 2, axis=1)
        sigmoid = _sigmoid(gate)
        out = x_middle + (gate * sigmoid * up) @ parameters[prefix + "down"]
        kept = _Saved(
            x,
            attention_scale,
            queries,
            keys,
            values,
            probabilities,
            mixed,
            x_middle,
            mlp_scale,
            gate,
            up,
            sigmoid,
        )
        return out, kept

    def _backward(
        self,
        layer: int,
        parameters: Arrays,
        kept: _Saved,
        d_x: Array,
        gradients: Arrays,
        shape: tuple[int, ...],
    ) -> Array:
        prefix = f"layers.{layer}."
        d_middle: Array = d_x + self._backward_mlp(prefix, parameters, kept, d_x, gradients)
        gradients[prefix + "output"] = kept.mixed.T @ d_middle
        d_qkv = self._backward_attention(kept, d_middle @ parameters[prefix + "output"].T, shape)
        weight = parameters[prefix + "attention_norm"]
        normed: Array = kept.x * kept.attention_scale * weight
        gradients[prefix + "qkv"] = normed.T @ d_qkv
        d_norm, gradients[prefix + "attention_norm"] = _norm_backward(
            d_qkv @ parameters[prefix + "qkv"].T, kept.x, kept.attention_scale, weight
        )
        return d_middle + d_norm

    def _backward_mlp(
        self, prefix: str, parameters: Arrays, kept: _Saved, d_out: Array, gradients: Arrays
    ) -> Array:
        swish: Array = kept.gate * kept.sigmoid
        inner: Array = swish * kept.up
        gradients[prefix + "down"] = inner.T @ d_out
        d_inner = d_out @ parameters[prefix + "down"].T
        d_gate = d_inner * kept.up * (kept.sigmoid + swish * (np.float32(1.0) - kept.sigmoid))
        d_gate_up = np.concatenate((d_gate, d_inner * swish), axis=1)
        weight = parameters[prefix + "mlp_norm"]
        normed: Array = kept.x_middle * kept.mlp_scale * weight
        gradients[prefix + "gate_up"] = normed.T @ d_gate_up
        d_x, gradients[prefix + "mlp_norm"] = _norm_backward(
            d_gate_up @ parameters[prefix + "gate_up"].T, kept.x_middle, kept.mlp_scale, weight
        )
        return d_x

    def _backward_attention(self, kept: _Saved, d_mixed: Array, shape: tuple[int, ...]) -> Array:
        """Gradient [N, qkv] from that of the mixed heads [N, query_size]."""
        config = self.config
        d_heads = self._heads(d_mixed, shape, config.num_attention_heads)
        p = kept.probabilities
        d_values = (p.swapaxes(-1, -2) @ d_heads).sum(axis=2, keepdims=True)
        d_p = d_heads @ kept.values.swapaxes(-1, -2)
        d_scores = p * (d_p - (d_p * p).sum(axis=-1, keepdims=True))
        d_scores *= config.head_dim**-0.5
        d_queries = self._turn(d_scores @ kept.keys, back=True)
        d_keys = self._turn((d_scores.swapaxes(-1, -2) @ kept.queries).sum(axis=2, keepdims=True), back=True)
        return np.concatenate([self._join(part) for part in (d_queries, d_keys, d_values)], axis=1)

    def _split(self, qkv: Array, shape: tuple[int, ...]) -> tuple[Array, Array, Array]:
        """Queries [B, kv_heads, group, T, head_dim]; keys and values with a group of 1; all rotated."""
        config = self.config
        q_end, k_end = config.query_size, config.query_size + config.kv_size
        queries = self._heads(qkv[:, :q_end], shape, config.num_attention_heads)
        keys = self._heads(qkv[:, q_end:k_end], shape, config.num_key_value_heads)
        values = self._heads(qkv[:, k_end:], shape, config.num_key_value_heads)
        return self._turn(queries), self._turn(keys), values

    def _heads(self, flat: Array, shape: tuple[int, ...], heads: int) -> Array:
        kv_heads = self.config.num_key_value_heads
        split = flat.reshape(*shape, kv_heads, heads // kv_heads, self.config.head_dim)
        return np.ascontiguousarray(split.transpose(0, 2, 3, 1, 4))

    def _join(self, heads: Array) -> Array:
        rows = heads.shape[0] * heads.shape[3]
        return heads.transpose(0, 3, 1, 2, 4).reshape(rows, -1)

    def _turn(self, heads: Array, back: bool = False) -> Array:
        length, half = heads.shape[3], heads.shape[4] // 2
        cosine = self._cosine[:length]
        sine = -self._sine[:length] if back else self._sine[:length]
        left, right = heads[..., :half], heads[..., half:]
        return np.concatenate((left * cosine - right * sine, right * cosine + left * sine), axis=-1)


def _sigmoid(x: Array) -> Array:
    result: Array = np.exp(-x)
    result += 1.0
    return np.reciprocal(result, out=result)


def _norm(x: Array, weight: Array, epsilon: float) -> tuple[Array, Array]:
    root: Array = np.sqrt(np.mean(x * x, axis=1, keepdims=True) + np.float32(epsilon))
    scale = np.float32(1.0) / root
    return x * scale * weight, scale


def _norm_backward(d_out: Array, x: Array, scale: Array, weight: Array) -> tuple[Array, Array]:
    d_scaled = d_out * weight
    cubed: Array = np.power(scale, 3)
    shared = (d_scaled * x).sum(axis=1, keepdims=True) * cubed / np.float32(x.shape[1])
    return d_scaled * scale - x * shared, (d_out * x * scale).sum(axis=0)


def _causal_softmax(scores: Array) -> Array:
    length = scores.shape[-1]
    scores += np.triu(np.full((length, length), -1e30, dtype=np.float32), 1)
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    return scores


def _cross_entropy(logits: Array, batch: Batch) -> tuple[float, Array]:
    """Loss and its gradient for logits [N, vocab], which are overwritten."""
    rows, targets = np.arange(len(logits)), batch.targets.reshape(-1)
    weights = batch.weights.reshape(-1, 1)
    total = weights.sum()
    logits -= logits.max(axis=1, keepdims=True)
    chosen = logits[rows, targets]
    np.exp(logits, out=logits)
    sums = logits.sum(axis=1, keepdims=True)
    value = float(((np.log(sums[:, 0]) - chosen) * weights[:, 0]).sum() / total)
    logits /= sums
    logits[rows, targets] -= np.float32(1.0)
    logits *= weights / total
    return value, logits
