"""One real Triton for the tests of this folder, with every model that the emulator has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from emulator.engine import EngineLimits
from emulator.triton.repository import (
    EmulatorModels,
    EncoderModels,
    EngineSpec,
    LlmApiModels,
    TextModels,
    TrtEngineModels,
    VllmModels,
    build_emulator_repository,
)
from enginehouse.local.triton import TritonProcess
from enginehouse.local.triton_environment import TritonEnvironment, ensure_environment
from tests.emulator.triton.server import Server
from tests.emulator.triton.small_model import write_small_model

LIMITS = EngineLimits(
    max_batch_size=64,
    max_num_tokens=512,
    max_seq_len=1024,
    max_input_len=200,
    kv_blocks=1024,
    max_lora_rank=4,
    lora_cache_host_memory_bytes=10_000,  # room for two of the adapters of these tests
)

MakeServer = Callable[[Path, list[EmulatorModels]], TritonProcess]


@pytest.fixture(scope="session")
def runner() -> Iterator[asyncio.Runner]:
    """A loop of its own: session fixtures on pytest-asyncio's loop are made anew for every test."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="session")
def triton(runner: asyncio.Runner) -> TritonEnvironment:
    return runner.run(ensure_environment())


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def fault_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Turns a fault on for every model of the server; there only while a test wants one."""
    return tmp_path_factory.mktemp("faults") / "faults.json"


@pytest.fixture(scope="session")
def engine(model_dir: Path, fault_file: Path) -> EngineSpec:
    return EngineSpec(model_dir, LIMITS, guided_decoding=True, fault_file=fault_file)


@pytest.fixture(scope="session")
def all_models(engine: EngineSpec) -> list[EmulatorModels]:
    """Two sets and the llmapi model side by side: names are free."""
    older = TextModels(
        "old_ensemble", "old_before", "old_after", bls="old_bls", bls_instances=1, accumulate_tokens=True
    )
    plain = replace(engine, guided_decoding=False, limits=replace(LIMITS, max_lora_rank=0))
    return [
        TrtEngineModels(engine, text=TextModels(bls_instances=1)),
        TrtEngineModels(engine, name="old", dialect="0.19", text=older),
        TrtEngineModels(plain, name="whole", decoupled=False),
        LlmApiModels(engine, name="llmapi"),
        LlmApiModels(engine, name="old_llmapi", dialect="1.x"),
        VllmModels(engine),
        VllmModels(engine, name="vllm_embed", task="embed"),
        EncoderModels(engine.model_dir),
        EncoderModels(engine.model_dir, "token_encoder", "tokens", id_type="INT32"),
        EncoderModels(engine.model_dir, "text_encoder", "text"),
    ]


@pytest.fixture(scope="session")
def make_server(triton: TritonEnvironment) -> MakeServer:
    """A server over freshly written models, not started."""

    def make(folder: Path, models: list[EmulatorModels]) -> TritonProcess:
        names = build_emulator_repository(folder / "models", models)
        return TritonProcess("triton", triton, folder / "models", folder / "triton.log", load=names)

    return make


@pytest.fixture(scope="session")
def process(
    runner: asyncio.Runner,
    make_server: MakeServer,
    all_models: list[EmulatorModels],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[TritonProcess]:
    process = make_server(tmp_path_factory.mktemp("triton"), all_models)
    runner.run(process.start())
    try:
        runner.run(process.ready())
        yield process
    finally:
        runner.run(process.stop())


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    limits = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(timeout=limits, connector=aiohttp.TCPConnector(limit=0)) as session:
        yield session


@pytest.fixture
def server(process: TritonProcess, session: aiohttp.ClientSession) -> Server:
    return Server(process, session)
