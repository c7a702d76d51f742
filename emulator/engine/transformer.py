"""The forward pass: one flat list of tokens of many requests in, logits of the wanted tokens out.

Prompt chunks and single decoded tokens of different requests share every matrix product; only
attention looks at requests one group at a time. A request's numbers do not depend on its company:
the rows of a product are padded to a multiple of `ROW_MULTIPLE`, from which on OpenBLAS computes a
row alike in products of any height (tests hold it to that), and requests share an attention group
only when their own context lengths fall into the same bucket. The limit: the same prompt cut into
different chunks, or found in the cache, differs in the last bits, so a seeded answer may differ
where two tokens are as good as equally likely.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from emulator.engine.kv_pool import Index, KvPool, padded_tables
from emulator.engine.lora import Adapter
from emulator.engine.weights import Array, LayerWeights, ModelConfig, Weights

ROW_MULTIPLE = 16
ATTENTION_ROWS = 128  # prompt tokens attended at a time, so that their scores stay in cache
MASKED = np.float32(-1e30)


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive tokens of one request: a prompt chunk, or one decoded token.

    `start` is the position of the first token; `table` covers all positions up to the last one;
    `adapter` adds its low-rank part to the products of these tokens alone.
    """

    tokens: Sequence[int]
    start: int
    table: Sequence[int]
    adapter: Adapter | None = None

    @property
    def end(self) -> int:
        return self.start + len(self.tokens)


def rope_tables(config: ModelConfig) -> tuple[Array, Array]:
    """Cosine and sine [max_position_embeddings, head_dim / 2] of the rotary angles."""
    half = config.head_dim // 2
    frequency = config.rope_theta ** (-np.arange(half, dtype=np.float64) / half)
    angles = np.arange(config.max_position_embeddings, dtype=np.float64)[:, None] * frequency
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def rotate(heads: Array, cosine: Array, sine: Array) -> Array:
    """Rotates [tokens, heads, head_dim] by angles [tokens, 1, head_dim / 2]."""
    half = heads.shape[-1] // 2
    left, right = heads[..., :half], heads[..., half:]
    return np.concatenate((left * cosine - right * sine, right * cosine + left * sine), axis=-1)


def rms_norm(x: Array, weight: Array, epsilon: float) -> Array:
    root: Array = np.einsum("ij,ij->i", x, x)[:, None]
    root *= 1.0 / x.shape[1]
    root += epsilon
    np.sqrt(root, out=root)
    normed: Array = x / root * weight
    return normed


def silu_product(gate_up: Array) -> Array:
    """SwiGLU's inner product, from [tokens, 2 * intermediate]."""
    inner = gate_up.shape[1] // 2
    gate, up = gate_up[:, :inner], gate_up[:, inner:]
    with np.errstate(over="ignore"):
        denominator: Array = np.exp(-gate)
    denominator += 1.0
    np.divide(gate, denominator, out=denominator)
    denominator *= up
    return denominator


def bucket_of(blocks: int) -> int:
    """The padded number of blocks for a context of `blocks`: powers of two and their 1.5 multiples."""
    power = 1 << (blocks - 1).bit_length()
    return power * 3 // 4 if power >= 4 and blocks <= power * 3 // 4 else power


@dataclass(frozen=True, slots=True)
class _DecodeGroup:
    """Single-token segments whose contexts share a bucket."""

    flat: Index
    rows: Index
    mask: Array


@dataclass(frozen=True, slots=True)
class _Chunk:
    """A piece of a prompt chunk: its place in the flat list, its cache rows and its causal mask."""

    start: int
    stop: int
    rows: Index
    mask: Array


@dataclass(frozen=True, slots=True)
class _Layout:
    """A step's segments, arranged: where tokens sit, who attends to what."""

    tokens: Index
    cosine: Array
    sine: Array
    blocks: Index
    slots: Index
    groups: Sequence[_DecodeGroup]
    chunks: Sequence[_Chunk]
    adapted: Sequence[tuple[slice, Adapter]]


class Transformer:
    """Runs the forward pass of one set of weights over one KV pool; used by one thread."""

    def __init__(self, weights: Weights, pool: KvPool) -> None:
        self.config = weights.config
        self._weights = weights
        self._pool = pool
        self._cosine, self._sine = rope_tables(weights.config)
        self._unembed = np.ascontiguousarray(weights.head.T)

    def forward(self, segments: Sequence[Segment], wanted: Sequence[int]) -> Array:
        """Computes all segments, fills their KV slots, and returns logits [len(wanted), vocab].

        `wanted` holds numbers of segments; the logits are those after the segment's last token.
        """
        layout = self._arrange(segments)
        count = len(layout.tokens)
        x = np.zeros((_padded(count), self.config.hidden_size), dtype=np.float32)
        x[:count] = self._weights.embed[layout.tokens]
        for number, layer in enumerate(self._weights.layers):
            x += self._attend(number, layer, x, layout, count)
            normed = rms_norm(x, layer.mlp_norm, self.config.rms_norm_eps)
            inner = silu_product(_product(number, "gate_up", layer.gate_up, normed, layout))
            x += _product(number, "down", layer.down, inner, layout)
        ends = np.cumsum([len(segment.tokens) for segment in segments]) - 1
        return self._logits(x, ends[list(wanted)] if wanted else np.zeros(0, dtype=np.int64))

    def _logits(self, x: Array, rows: Index) -> Array:
        last = np.zeros((_padded(len(rows)), x.shape[1]), dtype=np.float32)
        last[: len(rows)] = x[rows]
        normed = rms_norm(last, self._weights.final_norm, self.config.rms_norm_eps)
        logits: Array = (normed @ self._unembed)[: len(rows)]
        return logits

    def _attend(self, number: int, layer: LayerWeights, x: Array, layout: _Layout, count: int) -> Array:
        config = self.config
        normed = rms_norm(x, layer.attention_norm, config.rms_norm_eps)
        qkv = _product(number, "qkv", layer.qkv, normed, layout)[:count].reshape(count, -1, config.head_dim)
        heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
        turned = rotate(qkv[:, : heads + kv_heads], layout.cosine, layout.sine)
        self._pool.write(number, layout.blocks, layout.slots, turned[:, heads:], qkv[:, heads + kv_heads :])
        queries = turned[:, :heads] * np.float32(config.head_dim**-0.5)
        mixed = np.zeros((x.shape[0], heads, config.head_dim), dtype=np.float32)
        for group in layout.groups:
            mixed[group.flat] = self._decode(number, group, queries[group.flat])
        for chunk in layout.chunks:
            mixed[chunk.start : chunk.stop] = self._prefill(number, chunk, queries[chunk.start : chunk.stop])
        return _product(number, "output", layer.output, mixed.reshape(x.shape[0], -1), layout)

    def _decode(self, number: int, group: _DecodeGroup, queries: Array) -> Array:
        """Attention of one token per request: queries [requests, heads, head_dim]."""
        keys, values = self._pool.gather(number, group.rows)
        requests, kv_heads = keys.shape[:2]
        grouped = queries.reshape(requests, kv_heads, -1, keys.shape[-1])
        scores = grouped @ keys.transpose(0, 1, 3, 2)
        scores += group.mask
        return (_softmax(scores) @ values).reshape(queries.shape)

    def _prefill(self, number: int, chunk: _Chunk, queries: Array) -> Array:
        """Causal attention of one chunk: queries [tokens, heads, head_dim]."""
        keys, values = self._pool.gather(number, chunk.rows)
        tokens, heads, size = queries.shape
        kv_heads = keys.shape[1]
        per_head = queries.transpose(1, 0, 2).reshape(kv_heads, heads // kv_heads, tokens, size)
        scores = per_head @ keys[0][:, None].transpose(0, 1, 3, 2)
        scores += chunk.mask
        mixed = _softmax(scores) @ values[0][:, None]
        flat: Array = mixed.reshape(heads, tokens, size).transpose(1, 0, 2)
        return flat

    def _arrange(self, segments: Sequence[Segment]) -> _Layout:
        size = self._pool.tokens_per_block
        tokens = np.concatenate([np.asarray(segment.tokens, dtype=np.int64) for segment in segments])
        positions = np.concatenate([np.arange(segment.start, segment.end) for segment in segments])
        blocks = np.concatenate(
            [
                np.asarray(segment.table, dtype=np.int64)[np.arange(segment.start, segment.end) // size]
                if len(segment.tokens) > 1
                else np.array([segment.table[segment.start // size]], dtype=np.int64)
                for segment in segments
            ]
        )
        groups, chunks = self._split(segments)
        return _Layout(
            tokens=tokens,
            cosine=self._cosine[positions][:, None],
            sine=self._sine[positions][:, None],
            blocks=blocks,
            slots=positions % size,
            groups=groups,
            chunks=chunks,
            adapted=_adapted(segments),
        )

    def _split(self, segments: Sequence[Segment]) -> tuple[list[_DecodeGroup], list[_Chunk]]:
        """Decoded tokens by bucket of context length; longer segments one by one."""
        buckets: dict[int, list[tuple[int, Segment]]] = {}
        chunks: list[_Chunk] = []
        offset = 0
        for segment in segments:
            if len(segment.tokens) == 1:
                width = bucket_of(-(-segment.end // self._pool.tokens_per_block))
                buckets.setdefault(width, []).append((offset, segment))
            else:
                chunks.extend(self._chunks(offset, segment))
            offset += len(segment.tokens)
        return [self._group(width, members) for width, members in buckets.items()], chunks

    def _group(self, width: int, members: Sequence[tuple[int, Segment]]) -> _DecodeGroup:
        lengths = np.array([segment.end for _, segment in members])
        reach = np.arange(width * self._pool.tokens_per_block)
        hidden = reach[None, :] >= lengths[:, None]
        return _DecodeGroup(
            flat=np.array([offset for offset, _ in members]),
            rows=self._pool.rows(padded_tables([segment.table for _, segment in members], width)),
            mask=np.where(hidden, MASKED, np.float32(0.0))[:, None, None, :],
        )

    def _chunks(self, offset: int, segment: Segment) -> Iterator[_Chunk]:
        """A long segment in pieces, each with the context that its own last token sees."""
        for start in range(segment.start, segment.end, ATTENTION_ROWS):
            end = min(start + ATTENTION_ROWS, segment.end)
            width = -(-end // self._pool.tokens_per_block)
            reach = np.arange(width * self._pool.tokens_per_block)
            hidden = reach[None, :] > np.arange(start, end)[:, None]
            yield _Chunk(
                start=offset + start - segment.start,
                stop=offset + end - segment.start,
                rows=self._pool.rows(padded_tables([segment.table], width)),
                mask=np.where(hidden, MASKED, np.float32(0.0))[None, None],
            )


def _product(number: int, target: str, weight: Array, x: Array, layout: _Layout) -> Array:
    """Rows times one matrix of layer `number`, and what the adapters of their requests add to it."""
    product: Array = x @ weight
    for rows, adapter in layout.adapted:
        adapter.add(number, target, x[rows], product[rows])
    return product


def _adapted(segments: Sequence[Segment]) -> list[tuple[slice, Adapter]]:
    """The rows of every segment with an adapter; one by one, so that company changes no bit."""
    found, offset = [], 0
    for segment in segments:
        end = offset + len(segment.tokens)
        if segment.adapter is not None:
            found.append((slice(offset, end), segment.adapter))
        offset = end
    return found


def _softmax(scores: Array) -> Array:
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    return scores


def _padded(rows: int) -> int:
    return max(ROW_MULTIPLE, -(-rows // ROW_MULTIPLE) * ROW_MULTIPLE)
