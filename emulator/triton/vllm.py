"""The vLLM backend's model: text in, deltas of text out, with an engine inside its process.

A model generates or embeds, as its weights decide; the other task is refused in the real backend's words.
"""

from __future__ import annotations

import itertools
import json
import queue
import threading
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from emulator.engine import EngineError, Weights
from emulator.engine.encoder import Encoder
from emulator.engine.tokenizer import EngineTokenizer
from emulator.triton.calls import ParentWatch, Ticker, submit
from emulator.triton.metrics import VllmMetrics
from emulator.triton.settings import GpuMemory, ModelSettings, build_engine, tokenizer_folder
from emulator.triton.tensors import (
    FINAL,
    Tensors,
    error_response,
    parameters_of,
    scalar,
    string_tensor,
    tensors_of,
    text,
)
from emulator.triton.vllm_call import ERROR, VllmCall
from emulator.triton.vllm_request import engine_request, options_of, parameters_in

_MOST_TOGETHER = 64


class VllmModel:
    """What the Python backend loads."""

    def initialize(self, args: dict[str, str]) -> None:
        settings = self._settings = ModelSettings(args)
        model_dir = Path(settings.required("emulator_model"))
        self._task = settings.text("emulator_task") or "generate"
        self._tokenizer = EngineTokenizer(tokenizer_folder(settings, model_dir))
        self._numbers = itertools.count(1)
        self._memory = GpuMemory(settings)
        self._engine = build_engine(settings, model_dir)
        self._embedder = _Embedder(Encoder(Weights.load(model_dir)), self._engine.max_input_len)
        metrics = VllmMetrics(settings.name, settings.version)
        period_s = settings.seconds("stats_check_period_ms", 100)
        self._ticker = Ticker("stats", period_s, lambda: metrics.publish(self._engine.stats()))
        self._parent = ParentWatch()
        self._parent.start()
        (self._engine if self._task == "generate" else self._embedder).start()
        self._ticker.start()

    def execute(self, requests: list[Any]) -> None:
        for request in requests:
            sender = request.get_response_sender()
            try:
                self._take(request, sender)
            except Exception as error:  # whatever it is, the client is told, as by the real backend
                sender.send(error_response(ERROR + str(error)), flags=FINAL)

    def finalize(self) -> None:
        self._ticker.stop()
        self._engine.close()
        self._embedder.close()
        self._parent.stop()
        self._memory.give_back()

    def _take(self, request: Any, sender: Any) -> None:
        tensors = tensors_of(request)
        asked = parameters_in(tensors, parameters_of(request))
        if asked.get("lora_name") is not None:
            sender.send(error_response("LoRA feature is not enabled."), flags=FINAL)
            return
        task = "generate" if "embedding_request" not in tensors else "embed"
        if task != self._task:
            raise EngineError(f"Model {self._settings.name} does not support '{task}' request")
        if task == "embed":
            self._embed(tensors, sender)
        else:
            self._generate(tensors, asked, parameters_of(request).get("fault"), sender)

    def _generate(self, tensors: Tensors, asked: dict[str, Any], fault: str | None, sender: Any) -> None:
        options = options_of(tensors, asked)
        asked = {**asked, "fault": fault}
        work = engine_request(
            str(next(self._numbers)), options, asked, self._tokenizer, self._engine.config.vocab_size
        )
        prompt_tokens = len(work.input_ids)
        call = VllmCall(
            sender, work.request_id, options, prompt_tokens, self._tokenizer, self._engine, work.guide
        )
        submit(self._engine, work, call.on_output)

    def _embed(self, tensors: Tensors, sender: Any) -> None:
        asked = json.loads(text(tensors, "embedding_request") or "{}")
        prompt = asked["input"]
        ids = self._tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
        told = bool(scalar(tensors, "return_num_input_tokens", False))
        self._embedder.take(ids, told, sender)


class _Embedder:
    """Embeds what waits, together, on a thread of its own."""

    def __init__(self, encoder: Encoder, max_input_len: int) -> None:
        self._encoder = encoder
        self._max_input_len = max_input_len
        self._waiting: queue.Queue[tuple[list[int], bool, Any] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._run, name="embedder", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        if self._thread.is_alive():
            self._waiting.put(None)
            self._thread.join()

    def take(self, ids: list[int], told: bool, sender: Any) -> None:
        """Queue one input. Raises EngineError for one that cannot be embedded."""
        vocab = self._encoder.config.vocab_size
        if len(ids) > self._max_input_len:
            raise EngineError(
                f"The decoder prompt (length {len(ids)}) is longer than the maximum model length of "
                f"{self._max_input_len}."
            )
        if not ids or min(ids) < 0 or max(ids) >= vocab:
            raise EngineError(f"Token id {max(ids, default=0)} is out of vocabulary")
        self._waiting.put((ids, told, sender))

    def _run(self) -> None:
        while (first := self._waiting.get()) is not None:
            group = [first]
            while len(group) < _MOST_TOGETHER and not self._waiting.empty():
                if (item := self._waiting.get()) is None:
                    return
                group.append(item)
            vectors = self._encoder.embed([ids for ids, _, _ in group])
            for vector, (ids, told, sender) in zip(vectors, group, strict=True):
                sender.send(_response(vector.tolist(), len(ids) if told else None), flags=FINAL)


def _response(vector: list[float], tokens: int | None) -> Any:
    tensors = [string_tensor("text_output", [json.dumps(vector)])]
    if tokens is not None:
        tensors.append(pb_utils.Tensor("num_input_tokens", np.asarray(tokens, np.uint32)))
    return pb_utils.InferenceResponse(output_tensors=tensors)
