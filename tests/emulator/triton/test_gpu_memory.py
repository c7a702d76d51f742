"""What CPU engines take of an emulated GPU: seen in Triton's metrics, refused when full, leaked on demand."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from controller.actuators import triton_memory
from controller.actuators.port import ActuatorError
from controller.actuators.triton import TritonPool
from emulator.engine import EngineLimits
from emulator.triton.gpu_ledger import FILE, TOTAL_MIB, read_ledger
from emulator.triton.repository import (
    EngineSpec,
    GpuModels,
    LlmApiModels,
    TrtEngineModels,
    VllmModels,
    build_emulator_repository,
)
from enginehouse.local.triton import TritonProcess
from enginehouse.local.triton_environment import TritonEnvironment
from inference.control import GpuMemory, TritonControl, gpu_memory
from inference.errors import InferenceError
from model_registry.entities import Deployment, Scaling, ServerRef
from model_registry.pools import Pool, PoolServer, TritonActuator
from model_registry.replicas import Replica

LIMITS = EngineLimits(max_seq_len=128, max_input_len=64, kv_blocks=8)
GPU = "GPU-00000000-0000-0000-0000-000000000000"


@pytest.fixture
async def full_server(
    tmp_path: Path, triton: TritonEnvironment, model_dir: Path
) -> AsyncIterator[TritonProcess]:
    """100 MiB, `a` of 40 loaded; `b` of 40 and `c` of 30 not."""
    engine = EngineSpec(model_dir, LIMITS, gpu_mib=40, fault_file=tmp_path / "faults.json")
    models = [
        GpuModels(),
        LlmApiModels(engine, "a"),
        TrtEngineModels(engine, "b"),
        VllmModels(replace(engine, gpu_mib=30), "c"),
    ]
    build_emulator_repository(tmp_path / "models", models)
    environment = {FILE: str(tmp_path / "gpu.jsonl"), TOTAL_MIB: "100"}
    process = TritonProcess(
        "triton",
        triton,
        tmp_path / "models",
        tmp_path / "triton.log",
        load=["emulated_gpu", "a"],
        environment=environment,
    )
    await process.start()
    try:
        await process.ready()
        yield process
    finally:
        await process.stop()


async def used_mib(control: TritonControl, wanted: float) -> None:
    """Waits until the server's metrics say so; they are brought up to date from time to time."""
    async with asyncio.timeout(10):
        while True:
            if [GpuMemory(GPU, wanted, 100)] == await control.gpu_memory():
                return
            await asyncio.sleep(0.02)


async def test_models_take_memory_until_none_is_left_and_give_it_back(
    full_server: TritonProcess, tmp_path: Path
) -> None:
    """The one that does not fit fails to load as on a full GPU; a leak stays until the server is gone."""
    server = ServerRef(http=full_server.http_url, metrics=full_server.metrics_url)
    async with TritonControl(server) as control:
        await used_mib(control, 40)
        await control.load("b")
        await used_mib(control, 80)
        with pytest.raises(InferenceError, match="out of memory"):
            await control.load("c")
        await used_mib(control, 80)
        await control.unload("a")
        await used_mib(control, 40)
        await control.load("c")
        (tmp_path / "faults.json").write_text(json.dumps({"fault": "leak"}))
        await control.unload("b")
        await used_mib(control, 70)
        (tmp_path / "faults.json").unlink()
        await control.unload("c")
        await used_mib(control, 40)
    lines = read_ledger(tmp_path / "gpu.jsonl")
    whats = [(line.model, line.what, line.used_mib) for line in lines]
    assert whats == [
        ("a", "load", 40),
        ("b", "load", 80),
        ("c", "refused", 80),
        ("a", "unload", 40),
        ("c", "load", 70),
        ("b", "leak", 70),
        ("c", "unload", 40),
    ]


def test_memory_of_real_servers_is_read_by_gpu() -> None:
    """As a Triton with two GPUs publishes it."""
    text = """# HELP nv_gpu_memory_total_bytes GPU total memory, in bytes
# TYPE nv_gpu_memory_total_bytes gauge
nv_gpu_memory_total_bytes{gpu_uuid="GPU-b"} 85899345920.000000
nv_gpu_memory_total_bytes{gpu_uuid="GPU-a"} 85899345920
# TYPE nv_gpu_memory_used_bytes gauge
nv_gpu_memory_used_bytes{gpu_uuid="GPU-a"} 1048576
nv_gpu_memory_used_bytes{gpu_uuid="GPU-b"} 4.294967296e+10
nv_gpu_utilization{gpu_uuid="GPU-b"} 0.5
"""
    assert gpu_memory(text) == [GpuMemory("GPU-a", 1, 81920), GpuMemory("GPU-b", 40960, 81920)]


async def test_a_pool_measures_what_its_models_take_and_leave_behind(
    full_server: TritonProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A load tells its size; what an unload does not give back is known until the server is restarted."""
    monkeypatch.setattr(triton_memory, "LAG_S", 1.0)
    asked = tmp_path / "asked"
    touch = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text(sys.argv[2])"
    http = full_server.http_url
    server = PoolServer(http=http, metrics=full_server.metrics_url, memory_mib=100)
    actuator = TritonActuator(
        type="triton", servers=(server,), recycle=(sys.executable, "-c", touch, str(asked), "{http}")
    )
    pool = TritonPool(Pool(name="p", actuator=actuator), lambda: 1)
    deployment = Deployment(name="b", model="b", scaling=Scaling(pool="p", memory_mib=35))
    replica = Replica(name="b.000001", deployment="b", model="b", pool="p", place=http)
    try:
        running = await pool.start(replica, deployment)
        assert running.memory_mib == 40
        assert pool.memories[http].used_mib == 80
        gpus = pool.memories[http].gpus
        assert gpus is not None
        assert (gpus.used_mib, gpus.total_mib) == (80, 100)
        assert 0 <= gpus.age_s < 60
        await pool.stop(replica, deployment)
        assert pool.memories[http][:2] == (40, 0)
        (tmp_path / "faults.json").write_text(json.dumps({"fault": "leak"}))
        await pool.start(replica, deployment)
        await pool.stop(replica, deployment)
        assert pool.memories[http][:2] == (80, 40)
        await pool.recycle(http)
        assert asked.read_text() == http
        assert pool.memories[http].kept_mib == 0
    finally:
        await pool.close()


async def test_a_restart_that_fails_says_why() -> None:
    server = PoolServer(http="http://127.0.0.1:9", memory_mib=100)
    command = (sys.executable, "-c", "import sys; sys.exit('no such server')")
    actuator = TritonActuator(type="triton", servers=(server,), recycle=command)
    pool = TritonPool(Pool(name="p", actuator=actuator), lambda: 1)
    with pytest.raises(ActuatorError, match="no such server"):
        await pool.recycle(server.http)
    missing = actuator.model_copy(update={"recycle": ("/no/such/program",)})
    with pytest.raises(ActuatorError, match="cannot be run"):
        await TritonPool(Pool(name="p", actuator=missing), lambda: 1).recycle(server.http)
