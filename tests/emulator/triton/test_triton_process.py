"""Starting, failing, being killed and stopping a real Triton; the environment that it runs in."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import aiohttp
import pytest

from emulator.triton.repository import EngineSpec, TrtEngineModels
from enginehouse.errors import ProcessError
from enginehouse.local.triton import TritonPorts, TritonProcess
from enginehouse.local.triton_environment import TritonEnvironment, check_triton, ensure_environment
from inference.control import TritonControl
from inference.errors import InferenceError
from model_registry.entities import ServerRef
from tests.emulator.triton.conftest import MakeServer
from tests.emulator.triton.server import Server, bare_body, events


def _regions(process: TritonProcess) -> list[Path]:
    return list(Path("/dev/shm").glob(f"{process.shm_prefix}*"))


def _stubs(process: TritonProcess) -> list[int]:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(child) for child in children.split()]


def test_this_machine_can_run_it() -> None:
    assert check_triton() is None


def test_a_python_without_libpython_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("enginehouse.local.triton_environment.libpython", lambda: None)
    problem = check_triton()
    assert problem is not None
    assert "no shared libpython" in problem.message
    assert "apt install libpython3" in problem.remedy


async def test_a_complete_environment_is_used_as_it_is(triton: TritonEnvironment) -> None:
    told: list[str] = []
    assert await ensure_environment(triton.directory, told.append) == triton
    assert told == []


async def test_it_sees_no_gpu_of_the_machine(
    triton: TritonEnvironment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    process = TritonProcess("triton", triton, tmp_path, tmp_path / "triton.log", load=())
    await process.start()
    try:
        assert b"CUDA_VISIBLE_DEVICES=" in Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
    finally:
        await process.stop()


async def test_a_killed_stub_hangs_its_streams_until_the_model_is_loaded_again(
    make_server: MakeServer, engine: EngineSpec, tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    process = make_server(tmp_path, [TrtEngineModels(engine)])
    await process.start()
    try:
        await process.ready()
        server = Server(process, session)
        body = bare_body(900, min_tokens=900, fault="slow:10")
        async with server.open_stream("tensorrt_llm", body) as response:
            await anext(events(response))
            (stub,) = _stubs(process)
            os.kill(stub, signal.SIGKILL)
        _, refused = await server.stream("tensorrt_llm", bare_body(1))
        assert "is not healthy" in refused[-1]["error"]
        assert (await server.post("/v2/repository/models/tensorrt_llm/load"))[0] == 200
        _, seen = await server.stream("tensorrt_llm", bare_body(2, min_tokens=2))
        assert len(seen) == 2
    finally:
        await process.stop()
    assert _regions(process) == []


async def test_models_may_be_changed_through_the_api_and_still_must_not_die(
    make_server: MakeServer,
    engine: EngineSpec,
    tmp_path: Path,
    session: aiohttp.ClientSession,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A stub that goes because its model was unloaded, or would not load, is no reason to end the server."""
    monkeypatch.setattr("enginehouse.local.triton.STUBS_PERIOD_S", 0.05)
    process = make_server(tmp_path, [TrtEngineModels(engine)])
    await process.start()
    try:
        await process.ready()
        watch = asyncio.create_task(process.wait())
        async with TritonControl(ServerRef(http=process.http_url), session) as control:
            config = await control.config("tensorrt_llm")
            await control.unload("tensorrt_llm")
            policy = {"batch_scheduler_policy": {"string_value": "hopeful"}}
            wrong = {**config, "parameters": {**config["parameters"], **policy}}
            with pytest.raises(InferenceError, match="hopeful"):
                await control.load("tensorrt_llm", {"config": json.dumps(wrong)})
            await control.load("tensorrt_llm")
        _, seen = await Server(process, session).stream("tensorrt_llm", bare_body(2, min_tokens=2))
        assert len(seen) == 2
        assert not watch.done()
        (stub,) = _stubs(process)
        os.kill(stub, signal.SIGKILL)
        async with asyncio.timeout(30):
            assert await watch in (-signal.SIGKILL, -signal.SIGABRT)  # ended by us, or before that by itself
    finally:
        await process.stop()


async def test_a_killed_server_leaves_nothing_and_starts_again_at_its_address(
    make_server: MakeServer, engine: EngineSpec, tmp_path: Path
) -> None:
    process = make_server(tmp_path, [TrtEngineModels(engine)])
    await process.start()
    try:
        await process.ready()
        ports, stubs = process.ports, _stubs(process)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        assert await process.wait() == -signal.SIGKILL
        async with asyncio.timeout(2):
            while any(map(_runs, stubs)):  # noqa: ASYNC110 - killed, and about to go
                await asyncio.sleep(0.01)
        assert _regions(process) == []
        await process.start()
        await process.ready()
        assert process.ports == ports
    finally:
        await process.stop()
    assert process.pid is None


async def test_stubs_at_work_end_by_themselves_when_their_server_is_killed(
    make_server: MakeServer, engine: EngineSpec, tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    """Nobody waits for the server here, as after `kill -9` of a whole stack."""
    process = make_server(tmp_path, [TrtEngineModels(engine)])
    await process.start()
    try:
        await process.ready()
        stubs = _stubs(process)
        body = bare_body(900, min_tokens=900, fault="slow:1")
        async with Server(process, session).open_stream("tensorrt_llm", body) as response:
            await anext(events(response))
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            with pytest.raises(aiohttp.ClientError):
                assert [event async for event in events(response)] == "a broken stream that looks whole"
        async with asyncio.timeout(13):
            while any(map(_runs, stubs)):  # noqa: ASYNC110 - the alarm comes after 10 s
                await asyncio.sleep(0.01)
    finally:
        await process.stop()


async def test_a_model_that_cannot_load_is_told_in_the_logs_words(
    make_server: MakeServer, engine: EngineSpec, tmp_path: Path
) -> None:
    broken = EngineSpec(tmp_path / "no such model", engine.limits)
    process = make_server(tmp_path, [TrtEngineModels(broken)])
    await process.start()
    try:
        with pytest.raises(ProcessError) as caught:
            await process.ready()
    finally:
        await process.stop()
    assert "ended with status" in caught.value.message
    assert "no such model" in str(caught.value.remedy)


async def test_a_port_that_another_server_holds_is_no_success(
    process: TritonProcess,
    triton: TritonEnvironment,
    engine: EngineSpec,
    make_server: MakeServer,
    tmp_path: Path,
) -> None:
    make_server(tmp_path, [TrtEngineModels(engine)])
    second = TritonProcess(
        "second",
        triton,
        tmp_path / "models",
        tmp_path / "second.log",
        load=["tensorrt_llm"],
        ports=TritonPorts(process.ports.http, process.ports.grpc, process.ports.metrics),
    )
    await second.start()
    try:
        with pytest.raises(ProcessError, match="second ended with status"):
            await second.ready()
    finally:
        await second.stop()


def _runs(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
