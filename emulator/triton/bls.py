"""`tensorrt_llm_bls`: the ensemble's work in one Python model, with the habits of the real one.

Known habits kept on purpose: the child request gets a fresh id, cancellation is never looked at, one
instance serves one request at a time, errors are whole tracebacks, and with `accumulate_tokens` every
chunk is the text of all tokens so far.
"""

from __future__ import annotations

import traceback
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from emulator.triton.settings import ModelSettings
from emulator.triton.tensors import (
    FINAL,
    Tensors,
    error_response,
    parameters_of,
    scalar,
    string_tensor,
    tensors_of,
    texts,
)

_PREPROCESSING_INPUTS = {
    "text_input": "QUERY",
    "decoder_text_input": "DECODER_QUERY",
    "max_tokens": "REQUEST_OUTPUT_LEN",
    "bad_words": "BAD_WORDS_DICT",
    "stop_words": "STOP_WORDS_DICT",
    "embedding_bias_words": "EMBEDDING_BIAS_WORDS",
    "embedding_bias_weights": "EMBEDDING_BIAS_WEIGHTS",
    "end_id": "END_ID",
    "pad_id": "PAD_ID",
}
_ENGINE_INPUT_BY_PREPROCESSED = {
    "INPUT_ID": "input_ids",
    "REQUEST_INPUT_LEN": "input_lengths",
    "BAD_WORDS_IDS": "bad_words_list",
    "STOP_WORDS_IDS": "stop_words_list",
    "EMBEDDING_BIAS": "embedding_bias",
    "REQUEST_OUTPUT_LEN": "request_output_len",
    "OUT_END_ID": "end_id",
    "OUT_PAD_ID": "pad_id",
}
_ENGINE_NAME = {
    "top_k": "runtime_top_k",
    "top_p": "runtime_top_p",
    "length_penalty": "len_penalty",
    "stream": "streaming",
}
_PASSED_ON = (
    "exclude_input_in_output",
    "top_k",
    "top_p",
    "temperature",
    "length_penalty",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "min_tokens",
    "min_length",
    "seed",
    "random_seed",
    "return_log_probs",
    "return_perf_metrics",
    "return_num_input_tokens",
    "return_num_output_tokens",
    "num_return_sequences",
    "lora_task_id",
    "lora_weights",
    "lora_config",
    "guided_decoding_guide_type",
    "guided_decoding_guide",
    "beam_width",
    "stream",
)


class BlsModel:
    """Calls the three models of its repository by name, one request after the other."""

    def initialize(self, args: dict[str, str]) -> None:
        settings = self._settings = ModelSettings(args)
        self._accumulate = settings.flag("accumulate_tokens", False)
        self._engine = settings.text("tensorrt_llm_model_name") or "tensorrt_llm"
        self._preprocessing = settings.text("preprocessing_model_name") or "preprocessing"
        self._postprocessing = settings.text("postprocessing_model_name") or "postprocessing"

    def execute(self, requests: list[Any]) -> None:
        for request in requests:
            sender = request.get_response_sender()
            try:
                self._serve(request, sender)
            except Exception:
                sender.send(error_response(traceback.format_exc()), flags=FINAL)

    def _serve(self, request: Any, sender: Any) -> None:
        tensors = tensors_of(request)
        streaming = bool(scalar(tensors, "stream", False))
        if streaming and not self._settings.decoupled:
            raise RuntimeError("Streaming is only supported in decoupled mode.")
        stop_words = texts(tensors, "stop_words")
        responses = self._texts(tensors, parameters_of(request), streaming)
        if not self._settings.decoupled:
            text, outputs = next(iter(responses))
            sender.send(_response(_cut(text, stop_words), outputs), flags=FINAL)
            return
        for text, outputs in responses:
            sender.send(_response(text if streaming else _cut(text, stop_words), outputs))
        sender.send(flags=FINAL)

    def _texts(
        self, tensors: Tensors, parameters: Mapping[str, Any], streaming: bool
    ) -> Iterator[tuple[str, list[Any]]]:
        """Text and engine outputs of each response; whole text so far when accumulating."""
        so_far: dict[int, list[int]] = {}
        for response in self._generate(tensors, parameters):
            outputs = {tensor.name(): tensor for tensor in response.output_tensors()}
            if not outputs:
                continue
            ids, lengths = outputs.pop("output_ids").as_numpy(), outputs.pop("sequence_length").as_numpy()
            if streaming and self._accumulate:
                tokens = so_far.setdefault(_sequence(outputs), [])
                tokens += ids[0, 0, : lengths[0, 0]].tolist()
                ids, lengths = np.array([[tokens]], np.int32), np.array([[len(tokens)]], np.int32)
            yield self._decode(ids, lengths), list(outputs.values())

    def _generate(self, tensors: Tensors, parameters: Mapping[str, Any]) -> Iterator[Any]:
        inputs = {
            _ENGINE_INPUT_BY_PREPROCESSED[name]: array
            for name, array in self._preprocess(tensors).items()
            if name in _ENGINE_INPUT_BY_PREPROCESSED and array.size
        }
        inputs |= {_ENGINE_NAME.get(name, name): tensors[name] for name in _PASSED_ON if name in tensors}
        wanted = [name for name in self._settings.outputs if name != "text_output"]
        request = pb_utils.InferenceRequest(
            model_name=self._engine,
            request_id=str(uuid.uuid4()),
            requested_output_names=["output_ids", "sequence_length", *wanted],
            inputs=[pb_utils.Tensor(name, array) for name, array in inputs.items()],
            parameters=dict(parameters),
        )
        for response in request.exec(decoupled=True):
            _raise_error(response)
            yield response

    def _preprocess(self, tensors: Tensors) -> dict[str, Any]:
        inputs = [
            pb_utils.Tensor(target, tensors[name])
            for name, target in _PREPROCESSING_INPUTS.items()
            if name in tensors
        ]
        names = list(_ENGINE_INPUT_BY_PREPROCESSED)
        return _call(self._preprocessing, inputs, names)

    def _decode(self, ids: Any, lengths: Any) -> str:
        inputs = [pb_utils.Tensor("TOKENS_BATCH", ids), pb_utils.Tensor("SEQUENCE_LENGTH", lengths)]
        decoded: bytes = _call(self._postprocessing, inputs, ["OUTPUT"])["OUTPUT"].reshape(-1)[0]
        return decoded.decode()


def _sequence(outputs: Mapping[str, Any]) -> int:
    """Which of several sequences a response belongs to."""
    index = outputs.get("sequence_index")
    return 0 if index is None else int(index.as_numpy().reshape(-1)[0])


def _call(model: str, inputs: list[Any], outputs: list[str]) -> dict[str, Any]:
    """One answer of a model that is not decoupled."""
    request = pb_utils.InferenceRequest(model_name=model, requested_output_names=outputs, inputs=inputs)
    response = request.exec()
    _raise_error(response)
    return {tensor.name(): tensor.as_numpy() for tensor in response.output_tensors()}


def _raise_error(response: Any) -> None:
    if response.has_error():
        raise pb_utils.TritonModelException(response.error().message())


def _response(text: str, outputs: list[Any]) -> Any:
    return pb_utils.InferenceResponse(output_tensors=[string_tensor("text_output", [text]), *outputs])


def _cut(text: str, stop_words: list[str]) -> str:
    """The text up to the first stop word, which stays in it."""
    ends = [text.find(word) + len(word) for word in stop_words if word and word in text]
    return text[: min(ends)] if ends else text
