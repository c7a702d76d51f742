"""A small random engine, and a client that collects what engines say."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from emulator.engine import (
    Engine,
    EngineLimits,
    EngineOutput,
    EngineRequest,
    FaultSwitch,
    ModelConfig,
    Pacing,
    SamplingParams,
    Weights,
)

VOCAB = 96
DEADLINE_S = 20.0
GREEDY = SamplingParams(temperature=0)


class Client:
    """Sends requests to one engine and keeps every output."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.outputs: dict[str, list[EngineOutput]] = {}
        self._changed = threading.Condition()

    def send(self, request_id: str, prompt: Any, max_tokens: int = 8, **fields: Any) -> None:
        fields.setdefault("sampling", GREEDY)
        request = EngineRequest(request_id, tuple(prompt), max_tokens, **fields)
        self.outputs[request_id] = []
        self.engine.submit(request, self._take)

    def _take(self, output: EngineOutput) -> None:
        with self._changed:
            self.outputs[output.request_id].append(output)
            self._changed.notify_all()

    def wait(self, condition: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, DEADLINE_S), "nothing came in time"

    def finals(self, request_id: str) -> list[EngineOutput]:
        return [output for output in self.outputs[request_id] if output.final]

    def tokens(self, request_id: str) -> list[int]:
        return [token for output in self.outputs[request_id] for token in output.token_ids]

    def wait_for_tokens(self, request_id: str, count: int) -> None:
        self.wait(lambda: len(self.tokens(request_id)) >= count)

    def finish(self, *request_ids: str) -> list[list[int]]:
        """Waits for the ends of these requests (all by default); their tokens."""
        names = request_ids or tuple(self.outputs)
        self.wait(lambda: all(self.finals(name) for name in names))
        return [self.tokens(name) for name in names]

    def ask(self, prompt: Any, max_tokens: int = 8, **fields: Any) -> list[int]:
        name = f"ask-{len(self.outputs)}"
        self.send(name, prompt, max_tokens, **fields)
        return self.finish(name)[0]

    def last(self, request_id: str) -> EngineOutput:
        return self.outputs[request_id][-1]


def prompt(seed: int, length: int) -> list[int]:
    """Token ids, the same for the same seed."""
    return [random.Random(seed).randrange(VOCAB) for _ in range(length)]


def poll(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.002)


@pytest.fixture(scope="session")
def weights() -> Weights:
    config = ModelConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=512,
    )
    made = Weights.random(config, 7)
    made.embed *= np.float32(30.0)  # spreads the logits, so that greedy choices are not ties
    return made


MakeClient = Callable[..., Client]


@pytest.fixture
def make_client(weights: Weights) -> Iterator[MakeClient]:
    """Makes engines with some limits changed; at the end none may hold a block or a request."""
    engines: list[Engine] = []

    def make(
        pacing: Pacing | None = None,
        faults: FaultSwitch | None = None,
        script: Callable[[Sequence[int]], tuple[int, ...] | None] | None = None,
        **limits: Any,
    ) -> Client:
        base = EngineLimits(
            max_batch_size=16,
            max_num_tokens=64,
            max_seq_len=256,
            max_input_len=200,
            tokens_per_block=4,
            kv_blocks=256,
        )
        engine = Engine(weights, replace(base, **limits), pacing, faults, script=script)
        engine.start()
        engines.append(engine)
        return Client(engine)

    yield make
    for engine in engines:
        engine.close()
        stats = engine.stats()
        assert stats.kv_used_blocks == 0
        assert stats.active_requests == 0
        engine._pool.check()
        assert engine._pool.reserved == 0


@pytest.fixture
def client(make_client: MakeClient) -> Client:
    return make_client()
