"""Preflight of engines that an OpenAI-HTTP server runs: no repository, the same features."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine_builder.checkpoint import Checkpoint
from engine_builder.package import Trust, fetch, package
from engine_builder.preflight import Subject, preflight
from engine_builder.preflight.live import live
from model_registry.entities import ServerRef
from tests.engine_builder.packages import CHAT_MODEL, SIGNER, real_package, spec, write_launch

TRUST = Trust.of(SIGNER)
DEADLINE_S = 30.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerRef]:
    """The emulator's server, as the package's own script starts it."""
    folder = tmp_path_factory.mktemp("openai")
    ready = folder / "ready.json"
    command = [sys.executable, "-m", "emulator.openai_server", "--name", "depot-chat"]
    command += ["--model-dir", str(CHAT_MODEL), "--port", "0", "--ready-file", str(ready)]
    with subprocess.Popen(command) as process:
        try:
            asyncio.run(_until(ready, process))
            url = str(json.loads(ready.read_text())["base_url"]).removesuffix("/v1")
            yield ServerRef(http=url)
        finally:
            process.terminate()


async def _until(ready: Path, process: subprocess.Popen[bytes]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not ready.exists():
            assert process.poll() is None
            await asyncio.sleep(0.02)


async def test_every_declared_feature_is_tried(server: ServerRef, tmp_path: Path) -> None:
    wanted = spec(lane="trtllm-serve", gpu_class="cpu", precision="fp16")
    made = package(
        wanted,
        Checkpoint.open(str(CHAT_MODEL)),
        {"launch": write_launch(tmp_path / "launch")},
        "e" * 64,
        "emulated",
        tmp_path / "packages",
        SIGNER,
    )
    fetch(str(made), tmp_path / "engine", TRUST)
    script = (tmp_path / "engine/serve/launch/serve.sh").read_text()
    assert f"--name \\\n    depot-chat \\\n    --model-dir \\\n    {CHAT_MODEL}" in script
    record = await preflight(Subject.read(tmp_path / "engine"), TRUST, server)
    assert [check for check in record.checks if not check.passed] == []
    names = {check.name for check in record.checks}
    assert {"smoke_stream", "smoke_stop", "smoke_seed", "smoke_cancel", "server_runtime"} <= names


async def test_the_emulators_models_are_no_real_engine(server: ServerRef, tmp_path: Path) -> None:
    made = real_package(tmp_path, lane="vllm", lora=None, tensor_parallel=1)
    checks = {check.name: check for check in await live(Subject.read(made), server)}
    assert not checks["server_runtime"].passed
    assert "is an emulator" in checks["server_runtime"].detail
