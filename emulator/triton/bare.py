"""The bare `tensorrt_llm` model: token ids in, token ids out, with an engine inside its process.

Behaves as the C++ model does, as far as the wire shows: one response per step and sequence when
streaming, one per sequence otherwise; the last one carries the final flag; every error is INTERNAL.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from emulator.engine import Engine, EngineError, RejectedRequestError
from emulator.triton.bare_call import BareCall, executor_error
from emulator.triton.bare_request import engine_requests, options_of
from emulator.triton.calls import OpenCalls, ParentWatch, Ticker, cancel_abandoned, submit
from emulator.triton.metrics import EngineMetrics
from emulator.triton.settings import GpuMemory, ModelSettings, build_engine
from emulator.triton.tensors import FINAL, error_response, parameters_of, scalar, tensors_of


class BareModel:
    """What the Python backend loads; `execute` only hands requests to the engine and returns."""

    def initialize(self, args: dict[str, str]) -> None:
        settings = self._settings = ModelSettings(args)
        self._memory = GpuMemory(settings)
        self._engine = build_engine(settings, Path(settings.required("gpt_model_path")))
        self._echo = not settings.flag("exclude_input_in_output", False)
        self._numbers = itertools.count(1)
        self._calls = OpenCalls()
        period_s = settings.seconds("cancellation_check_period_ms", 100)
        self._poller = Ticker("cancellation", period_s, lambda: cancel_abandoned(self._calls))
        metrics = self._metrics = EngineMetrics(settings.name, settings.version, _kv_pool_bytes(self._engine))
        period_s = settings.seconds("stats_check_period_ms", 100)
        self._ticker = Ticker("stats", period_s, lambda: metrics.publish(self._engine.stats()))
        self._parent = ParentWatch()
        self._parent.start()
        self._engine.start()
        self._poller.start()
        self._ticker.start()

    def execute(self, requests: list[Any]) -> None:
        for request in requests:
            sender = request.get_response_sender()
            try:
                self._take(request, sender)
            except RejectedRequestError as error:
                sender.send(executor_error(str(next(self._numbers)), error), flags=FINAL)
            except Exception as error:  # whatever it is, the client is told, as by the C++ model
                sender.send(error_response(str(error)), flags=FINAL)

    def finalize(self) -> None:
        self._ticker.stop()
        self._poller.stop()
        self._engine.close()
        self._parent.stop()
        self._memory.give_back()

    def _take(self, request: Any, sender: Any) -> None:
        tensors = tensors_of(request)
        triton_id = request.request_id()
        if scalar(tensors, "stop", False):
            self._stop(triton_id)
            sender.send(pb_utils.InferenceResponse(output_tensors=[]), flags=FINAL)
            return
        options = options_of(tensors, frozenset(request.requested_output_names()), self._settings, self._echo)
        numbers = [str(next(self._numbers)) for _ in range(options.sequences)]
        work = engine_requests(tensors, options, numbers, parameters_of(request).get("fault"))
        call = BareCall(
            sender,
            triton_id,
            options,
            tensors,
            numbers,
            cancel=self._engine.cancel,
            observe=self._metrics.observe,
            on_ended=self._calls.remove,
        )
        self._calls.add(call)
        for item in work:
            submit(self._engine, item, call.on_output)

    def _stop(self, triton_id: str) -> None:
        if not triton_id:
            raise EngineError("Trying to stop a request but request ID is not provided")
        self._calls.stop(triton_id)


def _kv_pool_bytes(engine: Engine) -> int:
    limits, config = engine.limits, engine.config
    per_token = 2 * config.num_hidden_layers * config.kv_size * np.dtype(np.float32).itemsize
    return limits.kv_blocks * limits.tokens_per_block * per_token
