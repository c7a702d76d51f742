"""Choosing the next token of every request from the step's logits.

What all rows share (temperature, maxima, log-softmax) is done on the whole array; what few
requests ask for (penalties, bad words, top-k, top-p) row by row. A row's choice depends on its own
logits and its own random generator only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from emulator.engine.api import EngineRequest, TopLogProbs
from emulator.engine.weights import Array

FIRST_CANDIDATES = 64


class GuideState(Protocol):
    """Where a request stands in the grammar that its answer must follow."""

    def mask(self, row: Array) -> None:
        """Makes the tokens impossible that may not come next."""

    def accept(self, token: int) -> None:
        """Takes the token that was chosen."""


@dataclass(slots=True)
class SamplingState:
    """What sampling remembers of one request: its tokens, their counts, its random generator."""

    request: EngineRequest
    tokens: list[int]
    guide: GuideState | None = None
    counts: NDArray[np.int32] | None = field(init=False)
    generator: np.random.Generator | None = field(init=False)
    adjusted: bool = field(init=False)

    def __post_init__(self) -> None:
        sampling = self.request.sampling
        self.counts = None
        self.generator = None if sampling.greedy else np.random.Generator(np.random.PCG64(sampling.seed))
        self.adjusted = (
            self.penalised
            or bool(self.request.bad_words)
            or sampling.min_tokens > 0
            or self.guide is not None
        )

    @property
    def penalised(self) -> bool:
        sampling = self.request.sampling
        penalties = (sampling.repetition_penalty, sampling.presence_penalty, sampling.frequency_penalty)
        return penalties != (1.0, 0.0, 0.0)

    def counted(self, vocab: int) -> NDArray[np.int32]:
        """How often each token occurred so far, prompt included."""
        if self.counts is None:
            self.counts = np.bincount(self.tokens, minlength=vocab).astype(np.int32)
        return self.counts

    def append(self, token: int) -> None:
        self.tokens.append(token)
        if self.counts is not None:
            self.counts[token] += 1
        if self.guide is not None:
            self.guide.accept(token)

    @property
    def produced(self) -> int:
        return len(self.tokens) - len(self.request.input_ids)


@dataclass(frozen=True, slots=True)
class Choice:
    """The chosen token and the logarithm of its probability; None when nobody asked for it."""

    token: int
    log_prob: float | None
    top: TopLogProbs = ()


def choose(logits: Array, states: Sequence[SamplingState]) -> list[Choice]:
    """One token per row of logits [requests, vocab], which are overwritten.

    Log probabilities are of the distribution after bias, temperature and penalties, and before
    min-p, top-k and top-p cut it.
    """
    _adjust(logits, states)
    best = logits.argmax(axis=1).tolist()
    tokens = [
        best[row]
        if state.generator is None
        else draw(
            _likely(logits[row], state.request.sampling.min_p),
            state.request.sampling.top_k,
            state.request.sampling.top_p,
            state.generator.random(),
        )
        for row, state in enumerate(states)
    ]
    asked = [row for row, state in enumerate(states) if state.request.return_log_probs]
    log_probs = dict(zip(asked, _log_probs(logits, asked, tokens), strict=True)) if asked else {}
    tops = {row: _top_log_probs(logits[row], states[row].request.top_log_probs) for row in asked}
    return [Choice(token, log_probs.get(row), tops.get(row, ())) for row, token in enumerate(tokens)]


def _adjust(logits: Array, states: Sequence[SamplingState]) -> None:
    for row, state in enumerate(states):
        if state.request.embedding_bias is not None:
            logits[row] += state.request.embedding_bias
    temperatures = [state.request.sampling.temperature or 1.0 for state in states]
    if any(temperature != 1.0 for temperature in temperatures):
        logits /= np.asarray(temperatures, dtype=np.float32)[:, None]
    for row, state in enumerate(states):
        if state.adjusted:
            _penalise(logits[row], state)
            _forbid(logits[row], state)
            if state.guide is not None:
                state.guide.mask(logits[row])


def _penalise(row: Array, state: SamplingState) -> None:
    if not state.penalised:
        return
    sampling = state.request.sampling
    counts = state.counted(len(row))
    seen = np.flatnonzero(counts)
    values = row[seen]
    penalty = np.float32(sampling.repetition_penalty)
    values = np.where(values < 0, values * penalty, values / penalty)
    values -= np.float32(sampling.presence_penalty)
    values -= np.float32(sampling.frequency_penalty) * counts[seen].astype(np.float32)
    row[seen] = values


def _forbid(row: Array, state: SamplingState) -> None:
    request = state.request
    if request.end_id is not None and state.produced < request.sampling.min_tokens:
        row[request.end_id] = -np.inf
    for word in request.bad_words:
        if ends_with(state.tokens, word[:-1]):
            row[word[-1]] = -np.inf


def ends_with(tokens: Sequence[int], word: Sequence[int]) -> bool:
    """True when `tokens` ends in `word`; every list ends in the empty word."""
    return not word or (len(tokens) >= len(word) and tuple(tokens[-len(word) :]) == tuple(word))


def _likely(row: Array, min_p: float) -> Array:
    """The row without what is less likely than `min_p` times the likeliest token."""
    return row if min_p <= 0 else np.where(row < row.max() + np.log(np.float32(min_p)), -np.inf, row)


def draw(row: Array, top_k: int, top_p: float, uniform: float) -> int:
    """The token at `uniform` in [0, 1) of the distribution that top-k and top-p leave of the row.

    Of equal logits the lower id ranks first. Top-p keeps the fewest tokens whose probability, among
    those top-k left, reaches it; the most likely one always stays.
    """
    limited = 0 < top_k < len(row)
    cut = 0.0 < top_p < 1.0
    if not limited and not cut:
        return _at(np.cumsum(_weights(row, row.max())), uniform)
    ids, cumulated = (_top_k(row, top_k)) if limited else _top_p(row, top_p)
    if limited and cut:
        kept = _reach(cumulated, top_p * cumulated[-1])
        cumulated = cumulated[:kept]
    return int(ids[_at(cumulated, uniform)])


def _weights(values: Array, maximum: np.float32) -> NDArray[np.float64]:
    return np.exp(values.astype(np.float64) - float(maximum))


def _at(cumulated: NDArray[np.float64], uniform: float) -> int:
    place = int(np.searchsorted(cumulated, uniform * cumulated[-1], side="right"))
    return min(place, len(cumulated) - 1)


def _reach(cumulated: NDArray[np.float64], mass: float) -> int:
    return min(int(np.searchsorted(cumulated, mass, side="left")) + 1, len(cumulated))


def _top_k(row: Array, count: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Ids of the `count` largest values, best first, and the running sum of their weights."""
    threshold = np.partition(row, len(row) - count)[len(row) - count]
    ids = np.flatnonzero(row >= threshold)
    ids = ids[np.argsort(-row[ids], kind="stable")][:count]
    return ids, np.cumsum(_weights(row[ids], row.max()))


def _top_p(row: Array, top_p: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """As `_top_k`, with just enough ids; looks at few candidates first, which nearly always suffices."""
    total = float(_weights(row, row.max()).sum())
    count = min(FIRST_CANDIDATES, len(row))
    ids, cumulated = _top_k(row, count)
    while cumulated[-1] < top_p * total and count < len(row):
        count = min(count * 8, len(row))
        ids, cumulated = _top_k(row, count)
    kept = _reach(cumulated, top_p * total)
    return ids[:kept], cumulated[:kept]


def _log_probs(logits: Array, rows: Sequence[int], tokens: Sequence[int]) -> list[float]:
    chosen = logits[list(rows)]
    maxima = chosen.max(axis=1, keepdims=True)
    totals = np.log(np.exp(chosen - maxima).sum(axis=1)) + maxima[:, 0]
    values = chosen[np.arange(len(rows)), [tokens[row] for row in rows]] - totals
    return [float(value) for value in values]


def _top_log_probs(row: Array, count: int) -> TopLogProbs:
    """The `count` likeliest tokens of a row."""
    if count == 0:
        return ()
    ids, _ = _top_k(row, min(count, len(row)))
    maximum = float(row.max())
    total = np.log(_weights(row, row.max()).sum()) + maximum
    return tuple((int(token), float(row[token] - total)) for token in ids)
