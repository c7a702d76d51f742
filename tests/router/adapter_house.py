"""A real Triton whose engines take LoRA adapters, behind one router."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from emulator.engine import EngineLimits, ModelConfig
from emulator.triton.repository import (
    EngineSpec,
    LlmApiModels,
    TextModels,
    TrtEngineModels,
    build_emulator_repository,
)
from enginehouse.local.triton import TritonProcess
from enginehouse.local.triton_environment import ensure_environment
from inference.adapters import Adapters
from inference.client import ModelClient, ModelClients
from inference.errors import InferenceError
from inference.introspection import introspect
from inference.push_http import Timeouts
from inference.request import InferenceRequest, Sampling, Usage
from inference.sink import Call, Delta, FinishReason, Sink, TokenScore
from inference.tokenizer import ModelTokenizer
from model_registry.entities import Adapter, Endpoint, Model, ServerRef
from model_registry.snapshot import Snapshot
from router.answer import Outcome
from router.attempts import Finished, Router
from router.config import RouterConfig
from router.job import Job
from router.profiles import Wish
from telemetry.config import TelemetryConfig
from telemetry.request_trace import AttemptTrace
from telemetry.tracing import Tracing
from tests.emulator.adapters import write_adapter

CHAT_MODEL = Path(__file__).parents[2] / "emulator" / "models" / "depot-chat"
LANES = {"ids": "tensorrt_llm", "text": "ensemble", "script": "tensorrt_llm_bls", "words": "llmapi"}
SENT_LANES = ("ids", "text", "script")
ROOM = 2
"""Adapters that the engines of "few" can hold."""
WAIT_S = 30


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, config = tmp_path_factory.mktemp("adapters"), ModelConfig.load(CHAT_MODEL)
    return [write_adapter(folder / str(seed), config, seed) for seed in range(ROOM + 2)]


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def process(
    runner: asyncio.Runner, folders: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TritonProcess]:
    """Engines with room for every adapter, and one with room for `ROOM`."""
    folder = tmp_path_factory.mktemp("triton")
    limits = {"max_batch_size": 32, "max_num_tokens": 512, "kv_blocks": 256, "max_lora_rank": 4}
    kept = (folders[0] / "adapter_model.safetensors").stat().st_size // 2  # the file is of single precision
    few = EngineLimits(**limits, lora_cache_host_memory_bytes=ROOM * kept + 1000)  # type: ignore[arg-type]
    many = EngineSpec(CHAT_MODEL, EngineLimits(**limits))  # type: ignore[arg-type]
    names = build_emulator_repository(
        folder / "models",
        [
            TrtEngineModels(many, name="ids", text=TextModels("text", "before", "after", bls="script")),
            TrtEngineModels(EngineSpec(CHAT_MODEL, few), name="few"),
            LlmApiModels(many, name="words"),
        ],
    )
    triton = runner.run(ensure_environment())
    process = TritonProcess("triton", triton, folder / "models", folder / "triton.log", load=names)
    runner.run(process.start())
    try:
        runner.run(process.ready())
        yield process
    finally:
        runner.run(process.stop())


class Collected:
    """An answer that keeps what it is given, as ids or as text."""

    started = False

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.words = ""
        self.begun = asyncio.Event()
        self._outcome: asyncio.Future[Outcome] | None = None

    @property
    def said(self) -> list[int] | str:
        return self.ids or self.words

    def attempt_begins(self, trace: AttemptTrace, outcome: asyncio.Future[Outcome]) -> None:
        self._outcome = outcome

    def attempt_runs(self, call: Call) -> None: ...

    def ended(self, request: InferenceRequest) -> FinishReason | None:
        return None

    def continuation(self, request: InferenceRequest) -> InferenceRequest | None:
        return None

    def head(self) -> None: ...

    def tokens(self, ids: Sequence[int], log_probs: Sequence[float] | None) -> None:
        self.started = True
        self.ids += ids
        self.begun.set()

    def text(self, delta: str, tokens: int | None = None) -> None:
        self.started = True
        self.words += delta
        self.begun.set()

    def scores(self, scores: Sequence[TokenScore]) -> None:
        raise AssertionError

    def vectors(self, vectors: Sequence[bytes]) -> None:
        raise AssertionError

    def data(self, data: bytes) -> None:
        raise AssertionError

    def delta(self, delta: Delta) -> None:
        raise AssertionError

    def flush(self) -> None: ...

    def end(self, reason: FinishReason | None, usage: Usage, stop: str | None = None) -> None:
        self._settle((reason, usage))

    def lost(self, error: InferenceError) -> None:
        self._settle(error)

    def _settle(self, outcome: Outcome) -> None:
        assert self._outcome is not None
        if not self._outcome.done():
            self._outcome.set_result(outcome)


class Counting(ModelClients):
    """Real clients that count which requests carried weights."""

    def __init__(self) -> None:
        super().__init__(Timeouts(connect_s=2, first_byte_s=WAIT_S, idle_s=WAIT_S))
        self.sent: list[int] = []
        self.sending = asyncio.Event()

    def sending_weights(self, endpoint: Endpoint) -> ModelClient:
        return Sending(super().sending_weights(endpoint), self)


class Sending:
    """A client for weights that tells of its calls."""

    def __init__(self, client: ModelClient, clients: Counting) -> None:
        self._client = client
        self._clients = clients

    def start(self, request: InferenceRequest, sink: Sink) -> Call:
        assert request.lora is not None
        self._clients.sent.append(request.lora.task_id)
        self._clients.sending.set()
        return self._client.start(request, sink)


class Observed:
    def __init__(self) -> None:
        self.outcomes: list[str] = []

    def attempt(self, endpoint: Endpoint, outcome: str) -> None:
        self.outcomes.append(outcome)

    def retried(self, wish: Wish) -> None:
        self.outcomes.append("retried")

    def continued(self, wish: Wish) -> None: ...

    def first_token(self, wish: Wish, *, late: bool) -> None: ...


class House:
    """One gateway's router in front of the real server."""

    def __init__(self, server: ServerRef, folders: list[Path]) -> None:
        self.server = server
        self.tokenizer = ModelTokenizer.load(CHAT_MODEL)
        self.model = Model(name="m", context_length=512)
        self.adapters = [
            Adapter(name=f"a{index}", model="m", path=str(folder)) for index, folder in enumerate(folders)
        ]
        self.snapshot = Snapshot.of(1, [self.model, *self.adapters])
        self.store = Adapters(1 << 30)
        self.clients = Counting()
        self.observed = Observed()
        self.router = Router(
            RouterConfig(no_endpoint_timeout_s=0.5),
            self.clients,
            lambda: self.snapshot,
            self.observed,
            self.store,
        )
        self._tracing = Tracing(TelemetryConfig())
        self._numbers = iter(range(10**6))

    async def serve(self, target: str, **fields: Any) -> Endpoint:
        """Make one model of the server the only endpoint."""
        schema = await introspect(self.server, target, LANES.get(target, "auto"))
        endpoint = Endpoint(
            **{
                "name": f"{target}@here",
                "deployment": "d",
                "model": "m",
                "profile": "balanced",
                "lane": schema.lane,
                "target": schema.target,
                "http": self.server.http,
                "grpc": self.server.grpc,
                "server_schema": schema.as_dict(),
                "state": "ready",
            }
            | fields
        )
        self.register(endpoint)
        return endpoint

    def register(self, *endpoints: Endpoint) -> None:
        self.snapshot = Snapshot.of(self.snapshot.version + 1, [self.model, *self.adapters, *endpoints])
        self.router.registry_changed()

    async def run(
        self, adapter: Adapter | None, answer: Collected, stream: bool = True, tokens: int = 10
    ) -> Finished:
        text, ids = self.tokenizer.encode_chat([{"role": "user", "content": "How do I store a box?"}])
        request = InferenceRequest(
            id=f"r{next(self._numbers)}",
            model="m",
            stream=stream,
            max_tokens=tokens,
            sampling=Sampling(temperature=0.0),
            prompt_ids=ids,
            prompt_text=text,
            end_id=self.tokenizer.end_id,
            lora=None if adapter is None else await self.store.identify(adapter),
        )
        wish = Wish(self.model, "balanced", "default", adapter)
        async with asyncio.timeout(WAIT_S):
            return await self.router.run(Job(request, wish, 10, self._tracing.begin(None, None)), answer)

    async def ask(self, adapter: Adapter | None, stream: bool = True) -> list[int] | str:
        answer = Collected()
        await self.run(adapter, answer, stream)
        return answer.said

    async def close(self) -> None:
        assert self.router.ledger.in_flight() == 0, "a lease was not given back"
        await self.clients.close()
        self.store.close()


@pytest.fixture
async def house(process: TritonProcess, folders: list[Path]) -> AsyncIterator[House]:
    made = House(ServerRef(http=process.http_url, grpc=process.grpc_url), folders)
    yield made
    await made.close()
