"""Block hashes: what stands for each whole block of a prompt's tokens and everything before it. Pure.

Two prompts share a hash where, and only where, they agree up to the end of that block. The same in every
process, so that gateways can tell each other. Not cryptographic: whoever makes two prompts collide has his
own request routed for a cache that is not there.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]
_GOLDEN = 0x9E3779B97F4A7C15
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_WORD = 2**64 - 1
_BY_30, _BY_27, _BY_31, _TIMES_FIRST, _TIMES_SECOND = (
    np.array(word, dtype=np.uint64) for word in (30, 27, 31, _FIRST, _SECOND)
)
"""Made once: to make numpy's number of Python's takes longer than to do it to a thousand words."""
_FEW = 16


class Chain(NamedTuple):
    """How far a sequence of tokens is hashed: what its next tokens are hashed on top of.

    For blocks of another size than ours, as engines tell of them; where a block of ours ends amid one of
    theirs, `rest` is what its first tokens add to its hash.
    """

    tokens: int = 0
    hash: int = 0
    rest: int = 0


def compact(ids: Sequence[int]) -> NDArray[np.uint32]:
    """Token ids in the form that is hashed; from a list about 8 ns a token, a fifth of what numpy takes."""
    return np.frombuffer(array("I", ids), dtype=np.uint32)


def block_hashes(ids: Sequence[int] | NDArray[np.uint32], block_tokens: int, seed: int = 0) -> array[int]:
    """One hash of 64 bits for each whole block of `block_tokens`, in order; an array, as objects would take
    as long again to make as the hashes.

    `seed` tells apart what makes other keys and values of the same tokens, as an adapter does. An array from
    `compact` costs about 1 ns a token.
    """
    words = np.ascontiguousarray(ids, np.uint32) if isinstance(ids, np.ndarray) else compact(ids)
    count = len(words) // block_tokens
    if count == 0:
        return array("Q")
    hashes = _sums(words[: count * block_tokens], count, block_tokens)
    if count <= _FEW:
        return _chained(hashes.tolist(), seed)
    hashes += _places(count)
    _mix(hashes)
    if seed:
        hashes[:1] += np.array([(seed * _GOLDEN) & _WORD], dtype=np.uint64)
    chained = array("Q")
    chained.frombytes(np.add.accumulate(hashes, out=hashes).view(np.uint8).data)
    return chained


def _chained(sums: list[int], seed: int) -> array[int]:
    """The hashes of few blocks, for which a call of numpy's takes longer than the arithmetic."""
    chained, place, so_far = array("Q"), 0, (seed * _GOLDEN) & _WORD
    for one in sums:
        place += _GOLDEN
        word = (one + place) & _WORD
        word = (word ^ word >> 30) * _FIRST & _WORD
        word = (word ^ word >> 27) * _SECOND & _WORD
        so_far = (so_far + (word ^ word >> 31)) & _WORD
        chained.append(so_far)
    return chained


def extended(
    chain: Chain, ids: Sequence[int], size: int, block_tokens: int
) -> list[tuple[Chain, tuple[int, ...]]]:
    """The chain with each `size` of `ids` behind it, and the hashes of our blocks that are whole by them.

    The same hashes as `block_hashes` gives to the whole sequence. `block_tokens` is the same every time, and
    one of it and `size` divides by the other; the chain ends where a block of `size` does.
    Raises ValueError where that is not so, or where a block of an odd size is part of one of an even size.
    """
    step = min(size, block_tokens)
    if (
        max(size, block_tokens) % step
        or step % 2 > block_tokens % 2
        or chain.tokens % size
        or len(ids) % size
    ):
        raise ValueError(f"blocks of {size} tokens are no parts or multiples of {block_tokens}")
    if not ids:
        return []
    per_block = block_tokens // step
    done = chain.tokens % block_tokens // step
    rows = -(-(done + len(ids) // step) // per_block)
    words = np.zeros(rows * block_tokens, np.uint32)
    words[done * step : done * step + len(ids)] = compact(ids)
    sums = np.cumsum(_part_sums(words, rows, per_block, step), axis=1, dtype=np.uint64)
    sums[:1] += np.uint64(chain.rest)
    first = chain.tokens // block_tokens
    hashes = sums[:, -1] + _places(first + rows)[first:]
    _mix(hashes)
    hashes[:1] += np.uint64(chain.hash)
    whole: list[int] = np.cumsum(hashes).tolist()
    found, before = [], [chain.hash, *whole]
    rests: list[list[int]] = sums.tolist()
    steps = size // step
    for number in range(len(ids) // size):
        last = done + (number + 1) * steps
        row, part = divmod(last, per_block)
        began = (done + number * steps) // per_block
        rest = rests[row][part - 1] if part else 0
        end = Chain(chain.tokens + (number + 1) * size, before[row], rest)
        found.append((end, tuple(whole[began:row])))
    return found


def _part_sums(words: NDArray[np.uint32], rows: int, parts: int, step: int) -> Words:
    """As `_sums`, for each of the equal parts of every block; tokens that are not there yet are 0."""
    each = words.astype(np.uint64) if parts * step % 2 else words.view(np.uint64)
    each = each.reshape(rows, parts, -1)
    sums: Words = np.einsum("ijk,jk->ij", each, _factors(parts * each.shape[2]).reshape(parts, -1))
    return sums


def _sums(words: NDArray[np.uint32], count: int, block_tokens: int) -> Words:
    """Each block's tokens times odd constants, which are others for each place in the block.

    Two tokens at once where that is possible: half the work, for weaker high halves that a mix makes good.
    """
    rows = words.astype(np.uint64) if block_tokens % 2 else words.view(np.uint64)
    rows = rows.reshape(count, -1)
    factors = _factors(rows.shape[1])
    sums: Words = rows @ factors if count <= _FEW else np.einsum("ij,j->i", rows, factors)  # each the faster
    return sums


@cache
def _factors(count: int) -> Words:
    factors = _places(count).copy()
    _mix(factors)
    return factors | np.uint64(1)


def _places(count: int) -> Words:
    """Something else for each place of a row."""
    return _table(1 << count.bit_length())[:count]


@cache
def _table(size: int) -> Words:
    return np.arange(1, size + 1, dtype=np.uint64) * np.uint64(_GOLDEN)


def _mix(words: Words) -> None:
    """The finaliser of SplitMix64, in place: every bit of a word moves every bit of its mix."""
    shifted = words >> _BY_30
    words ^= shifted
    words *= _TIMES_FIRST
    np.right_shift(words, _BY_27, out=shifted)
    words ^= shifted
    words *= _TIMES_SECOND
    np.right_shift(words, _BY_31, out=shifted)
    words ^= shifted
