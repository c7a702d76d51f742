"""`preprocessing` and `postprocessing`: the text ends of the ensemble, and of BLS.

As in the real models no chat template is applied, and each response is decoded on its own, so that a
character whose bytes are spread over two tokens comes out damaged when streaming.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from emulator.engine import EngineError
from emulator.engine.tokenizer import EngineTokenizer
from emulator.triton.settings import ModelSettings
from emulator.triton.tensors import (
    BadTensorError,
    Tensors,
    error_response,
    pack_words,
    scalar,
    string_tensor,
    tensors_of,
    texts,
)


class PreprocessingModel:
    """Text to token ids, with everything else the engine wants to know."""

    def initialize(self, args: dict[str, str]) -> None:
        settings = ModelSettings(args)
        self._tokenizer = EngineTokenizer(settings.required("tokenizer_dir"))
        self._add_special_tokens = settings.flag("add_special_tokens", True)

    def execute(self, requests: list[Any]) -> list[Any]:
        return [_answer(request, self._outputs) for request in requests]

    def _outputs(self, tensors: Tensors) -> list[Any]:
        queries = texts(tensors, "QUERY")
        prompts = [self._tokenizer.encode(query, self._add_special_tokens) for query in queries]
        rows = len(prompts)
        end_id = scalar(tensors, "END_ID", self._tokenizer.eos_id)
        pad_id = scalar(tensors, "PAD_ID", self._tokenizer.eos_id)
        arrays = {
            "INPUT_ID": _padded(prompts, pad_id),
            "REQUEST_INPUT_LEN": np.array([[len(prompt)] for prompt in prompts], np.int32),
            "DECODER_INPUT_ID": np.full((rows, 1), pad_id, np.int32),
            "REQUEST_DECODER_INPUT_LEN": np.ones((rows, 1), np.int32),
            "BAD_WORDS_IDS": self._words(tensors, "BAD_WORDS_DICT", rows),
            "STOP_WORDS_IDS": self._words(tensors, "STOP_WORDS_DICT", rows),
            "EMBEDDING_BIAS": self._bias(tensors, rows),
            "REQUEST_OUTPUT_LEN": np.asarray(tensors["REQUEST_OUTPUT_LEN"], np.int32).reshape(rows, -1),
            "OUT_END_ID": np.full((rows, 1), end_id, np.int32),
            "OUT_PAD_ID": np.full((rows, 1), pad_id, np.int32),
            "OUT_PROMPT_TABLE_EXTRA_IDS": np.zeros((rows, 0), np.uint64),
        }
        return [pb_utils.Tensor(name, array) for name, array in arrays.items()]

    def _words(self, tensors: Tensors, name: str, rows: int) -> Any:
        words = [self._tokenizer.encode(word, False) for word in texts(tensors, name) if word]
        return np.repeat(pack_words(words), rows, axis=0)

    def _bias(self, tensors: Tensors, rows: int) -> Any:
        words = texts(tensors, "EMBEDDING_BIAS_WORDS")
        if not words:
            return np.zeros((rows, 0), np.float32)
        weights = tensors.get("EMBEDDING_BIAS_WEIGHTS", np.zeros(0, np.float32)).reshape(-1)
        if len(weights) != len(words):
            raise BadTensorError(f"EMBEDDING_BIAS_WEIGHTS has {len(weights)} values for {len(words)} words")
        bias = np.zeros(self._tokenizer.vocab_size, np.float32)
        for word, weight in zip(words, weights, strict=True):
            bias[self._tokenizer.encode(word, False)] += weight
        return np.repeat(bias[None, :], rows, axis=0)


class PostprocessingModel:
    """Token ids of one response to text."""

    def initialize(self, args: dict[str, str]) -> None:
        settings = ModelSettings(args)
        self._tokenizer = EngineTokenizer(settings.required("tokenizer_dir"))
        self._skip_special_tokens = settings.flag("skip_special_tokens", True)

    def execute(self, requests: list[Any]) -> list[Any]:
        return [_answer(request, self._outputs) for request in requests]

    def _outputs(self, tensors: Tensors) -> list[Any]:
        batch, lengths = tensors["TOKENS_BATCH"], tensors["SEQUENCE_LENGTH"]
        decoded = [
            self._tokenizer.decode(beam[:length].tolist(), self._skip_special_tokens)
            for beams, beam_lengths in zip(batch, lengths, strict=True)
            for beam, length in zip(beams, beam_lengths, strict=True)
        ]
        return [string_tensor("OUTPUT", decoded)]


def _answer(request: Any, outputs: Any) -> Any:
    try:
        return pb_utils.InferenceResponse(output_tensors=outputs(tensors_of(request)))
    except EngineError as error:
        return error_response(str(error))


def _padded(prompts: list[list[int]], pad_id: int) -> Any:
    longest = max((len(prompt) for prompt in prompts), default=0)
    return np.array([prompt + [pad_id] * (longest - len(prompt)) for prompt in prompts], np.int32)
