"""Embedding models: token ids or text in, vectors out, as a plain Triton model with a batch dimension.

As of an exported encoder, Triton's dynamic batcher joins only requests of one shape; the requests of one
`execute` are computed together.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from emulator.engine import EngineError, Pacing, StepLoad, Weights
from emulator.engine.encoder import Encoder, pooled
from emulator.engine.tokenizer import EngineTokenizer
from emulator.triton.settings import ModelSettings
from emulator.triton.tensors import Array, BadTensorError, Tensors, error_response, tensors_of, texts


class EncoderModel:
    """What the Python backend loads."""

    def initialize(self, args: dict[str, str]) -> None:
        settings = ModelSettings(args)
        folder = settings.required("emulator_model")
        self._kind = settings.text("emulator_kind") or "sentence"
        self._output = next(iter(settings.outputs))
        self._encoder = Encoder(Weights.load(folder))
        self._pacing = Pacing.load(settings.text("emulator_pacing") or "none")
        self._max_input_len = int(settings.text("emulator_max_input_len") or 512)
        self._tokenizer = EngineTokenizer(folder) if self._kind == "text" else None

    def execute(self, requests: list[Any]) -> list[Any]:
        asked = [self._read(request) for request in requests]
        good = [item for item in asked if not isinstance(item, Exception)]
        answers = iter(self._compute(good))
        return [
            error_response(str(item)) if isinstance(item, Exception) else self._response(next(answers))
            for item in asked
        ]

    def _read(self, request: Any) -> tuple[Array, Array] | Exception:
        """Ids and mask of one request, or what is wrong with it."""
        try:
            tensors = tensors_of(request)
            ids, mask = self._tokenised(tensors) if self._tokenizer is not None else _given(tensors)
            self._check(ids, mask)
        except EngineError as error:
            return error
        return ids, mask

    def _tokenised(self, tensors: Tensors) -> tuple[Array, Array]:
        assert self._tokenizer is not None
        rows = [self._tokenizer.encode(text) for text in texts(tensors, "text")]
        longest = max(len(row) for row in rows)
        ids = np.array([row + [0] * (longest - len(row)) for row in rows], np.int64)
        return ids, np.array([[1] * len(row) + [0] * (longest - len(row)) for row in rows], bool)

    def _check(self, ids: Array, mask: Array) -> None:
        longest = int(mask.sum(axis=1).max())
        if longest > self._max_input_len:
            raise EngineError(
                f"Input length ({longest}) exceeds maximum input length ({self._max_input_len})"
            )
        if ids.min() < 0 or ids.max() >= self._encoder.config.vocab_size:
            raise BadTensorError(f"input_ids must be between 0 and {self._encoder.config.vocab_size - 1}")

    def _compute(self, asked: list[tuple[Array, Array]]) -> list[Array]:
        """One pass over the rows of all requests."""
        if not asked:
            return []
        longest = max(ids.shape[1] for ids, _ in asked)
        ids = np.concatenate([_widened(ids, longest) for ids, _ in asked])
        mask = np.concatenate([_widened(mask, longest) for _, mask in asked])
        began_s = time.monotonic()
        states = self._encoder.hidden(ids, mask)
        self._keep_pace(ids, began_s)
        computed = states if self._kind == "tokens" else pooled(states, mask)
        answers, start = [], 0
        for given, _ in asked:
            rows = computed[start : start + len(given)]
            answers.append(rows[:, : given.shape[1]] if self._kind == "tokens" else rows)
            start += len(given)
        return answers

    def _keep_pace(self, ids: Array, began_s: float) -> None:
        """Take the time that the paced GPU would, padding included."""
        if self._pacing is None:
            return
        rows, tokens = ids.shape
        load = StepLoad(rows * tokens, rows * tokens * (tokens + 1) // 2, 0, 0)
        time.sleep(max(0.0, self._pacing.step_s(load) - (time.monotonic() - began_s)))

    def _response(self, values: Array) -> Any:
        return pb_utils.InferenceResponse([pb_utils.Tensor(self._output, np.ascontiguousarray(values))])


def _given(tensors: Tensors) -> tuple[Array, Array]:
    ids, mask = tensors["input_ids"], tensors["attention_mask"].astype(bool)
    if ids.shape != mask.shape or ids.shape[1] == 0:
        raise BadTensorError(f"input_ids is {list(ids.shape)}, attention_mask {list(mask.shape)}")
    return ids.astype(np.int64), mask


def _widened(values: Array, tokens: int) -> Array:
    return np.pad(values, ((0, 0), (0, tokens - values.shape[1])))
