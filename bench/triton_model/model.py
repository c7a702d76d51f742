"""The cheapest decoupled model behind TensorRT-LLM's schema: emits token ids that tell the time.

One thread takes every open request one token further, waits what is left of `interval_us`, and begins again,
as an engine with in-flight batching does. At interval 0 it shows how fast Triton itself can be driven.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

_FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


@dataclass(slots=True)
class _Answer:
    """One open request."""

    sender: Any
    steps_left: int
    ids_per_step: int


class TritonPythonModel:
    """What the Python backend loads."""

    def initialize(self, args: dict[str, str]) -> None:
        parameters = json.loads(args["model_config"])["parameters"]
        numbers = {name: value["string_value"] for name, value in parameters.items()}
        self._id_base, self._id_count = int(numbers["id_base"]), int(numbers["id_count"])
        self._tick_us, self._interval_s = int(numbers["tick_us"]), int(numbers["interval_us"]) / 1e6
        self._work = threading.Condition()
        self._open: list[_Answer] = []
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="steps")
        self._thread.start()

    def execute(self, requests: list[Any]) -> None:
        with self._work:
            for request in requests:
                wanted, streaming = _number(request, "request_output_len"), _number(request, "streaming")
                steps, ids = (wanted, 1) if streaming else (1, wanted)
                self._open.append(_Answer(request.get_response_sender(), steps, ids))
            self._work.notify()

    def finalize(self) -> None:
        with self._work:
            self._closing = True
            self._work.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._work:
                self._work.wait_for(lambda: self._open or self._closing)
                if self._closing:
                    return
                running = list(self._open)
            began_s = time.monotonic()
            for answer in running:
                self._step(answer)
            with self._work:
                self._open = [answer for answer in self._open if answer.steps_left > 0]
            time.sleep(max(0.0, began_s + self._interval_s - time.monotonic()))

    def _step(self, answer: _Answer) -> None:
        """One response of one request."""
        if answer.sender.is_cancelled():
            answer.steps_left = 0
            answer.sender.send(flags=_FINAL)
            return
        answer.steps_left -= 1
        token = self._id_base + time.monotonic_ns() // 1000 // self._tick_us % self._id_count
        ids = pb_utils.Tensor("output_ids", np.full((1, 1, answer.ids_per_step), token, np.int32))
        length = pb_utils.Tensor("sequence_length", np.full((1, 1), answer.ids_per_step, np.int32))
        flags = 0 if answer.steps_left else _FINAL
        answer.sender.send(pb_utils.InferenceResponse([ids, length]), flags=flags)


def _number(request: Any, name: str) -> int:
    """A scalar input; 0 where it was not sent."""
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return int(tensor.as_numpy().flat[0]) if tensor is not None else 0
