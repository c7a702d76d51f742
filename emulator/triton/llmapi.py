"""The `llmapi` model: text in, text out, in one Python model with an engine inside.

Every streamed response holds the whole text so far, numbers are sent as STRING tensors, and an empty
final response ends the stream, as in the real model. In the dialect of 1.x a stream that was told to `stop`
is never ended by the model: only its client's leaving ends it.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils

from emulator.engine import EngineError, EngineRequest, SamplingParams
from emulator.engine.tokenizer import EngineTokenizer
from emulator.triton.calls import OpenCalls, ParentWatch, Ticker, cancel_abandoned, submit
from emulator.triton.llmapi_call import LlmApiCall, LlmApiOptions
from emulator.triton.llmapi_config import parameters_of_yaml
from emulator.triton.llmapi_lora import lora_of_path
from emulator.triton.settings import GpuMemory, ModelSettings, build_engine, tokenizer_folder
from emulator.triton.tensors import (
    FINAL,
    BadTensorError,
    Tensors,
    error_response,
    parameters_of,
    scalar,
    tensors_of,
    text,
    texts,
)

_ERROR = "Error generating request: "
_CANCELLED = "Request cancelled by client"
_DEFAULT_MAX_TOKENS = 32


class LlmApiModel:
    """What the Python backend loads; the engine's thread answers."""

    def initialize(self, args: dict[str, str]) -> None:
        settings = ModelSettings(args)
        if settings.text("emulator_model") is None:
            settings = ModelSettings(args, also=parameters_of_yaml(args))
        self._settings = settings
        model_dir = Path(settings.required("emulator_model"))
        self._memory = GpuMemory(settings)
        self._engine = build_engine(settings, model_dir)
        self._tokenizer = EngineTokenizer(tokenizer_folder(settings, model_dir))
        self._numbers = itertools.count(1)
        self._ends_stopped = settings.text("emulator_dialect") != "1.x"
        self._calls = OpenCalls()
        period_s = settings.seconds("cancellation_check_period_ms", 100)
        self._poller = Ticker("cancellation", period_s, lambda: cancel_abandoned(self._calls))
        self._parent = ParentWatch()
        self._parent.start()
        self._engine.start()
        self._poller.start()

    def execute(self, requests: list[Any]) -> None:
        for request in requests:
            sender = request.get_response_sender()
            try:
                self._take(request, sender)
            except Exception as error:  # whatever it is, the client is told, as by the real model
                sender.send(error_response(_ERROR + str(error)), flags=FINAL)

    def finalize(self) -> None:
        self._poller.stop()
        self._engine.close()
        self._parent.stop()
        self._memory.give_back()

    def _take(self, request: Any, sender: Any) -> None:
        tensors = tensors_of(request)
        triton_id = request.request_id()
        if scalar(tensors, "stop", False):
            self._calls.stop(triton_id)
            sender.send(error_response(_CANCELLED, pb_utils.TritonError.CANCELLED), flags=FINAL)
            return
        options = self._options(tensors)
        work = self._engine_request(tensors, options, parameters_of(request).get("fault"))
        call = LlmApiCall(
            sender, triton_id, work.request_id, options, self._tokenizer, self._engine, self._calls.remove
        )
        self._calls.add(call)
        submit(self._engine, work, call.on_output)

    def _options(self, tensors: Tensors) -> LlmApiOptions:
        streaming = bool(scalar(tensors, "streaming", False))
        if streaming and not self._settings.decoupled:
            raise EngineError("Streaming is only supported in decoupled mode.")
        array = tensors["text_input"]
        if array.ndim != 1:
            raise BadTensorError(f"text_input must be one-dimensional, got shape {list(array.shape)}")
        if int(scalar(tensors, "sampling_param_best_of", 1)) != 1:
            raise EngineError("sampling_param_best_of above 1 is not supported")
        return LlmApiOptions(
            prompt=text(tensors, "text_input") or "",
            streaming=streaming,
            decoupled=self._settings.decoupled,
            ends_stopped=self._ends_stopped,
            echo=not scalar(tensors, "sampling_param_exclude_input_from_output", False),
            finish_reason=bool(scalar(tensors, "return_finish_reason", False)),
            stop_reason=bool(scalar(tensors, "return_stop_reason", False)),
            cumulative_logprob=bool(scalar(tensors, "return_cumulative_logprob", False)),
            perf_metrics=bool(scalar(tensors, "sampling_param_return_perf_metrics", False)),
            stops=tuple(stop for stop in texts(tensors, "sampling_param_stop") if stop),
        )

    def _engine_request(self, tensors: Tensors, options: LlmApiOptions, fault: str | None) -> EngineRequest:
        seed = scalar(tensors, "sampling_param_seed", None)
        return EngineRequest(
            request_id=str(next(self._numbers)),
            input_ids=tuple(self._tokenizer.encode(options.prompt)),
            max_tokens=int(scalar(tensors, "sampling_param_max_tokens", _DEFAULT_MAX_TOKENS)),
            end_id=self._tokenizer.eos_id,
            stop_words=tuple(tuple(self._tokenizer.encode(stop, False)) for stop in options.stops),
            sampling=SamplingParams(
                temperature=scalar(tensors, "sampling_param_temperature", 1.0),
                # The LLM API samples greedily unless told otherwise.
                top_k=scalar(tensors, "sampling_param_top_k", 0 if _samples(tensors) else 1),
                top_p=scalar(tensors, "sampling_param_top_p", 1.0),
                presence_penalty=scalar(tensors, "sampling_param_presence_penalty", 0.0),
                frequency_penalty=scalar(tensors, "sampling_param_frequency_penalty", 0.0),
                seed=None if seed is None else int(seed),
            ),
            return_log_probs=options.cumulative_logprob,
            lora=lora_of_path(tensors),
            fault=fault,
        )


def _samples(tensors: Tensors) -> bool:
    return any(f"sampling_param_{name}" in tensors for name in ("temperature", "top_p"))
