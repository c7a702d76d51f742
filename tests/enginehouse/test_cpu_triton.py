"""`enginehouse triton` as a container runs it: a real Triton in the foreground, its log, its end."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from enginehouse.containers import probe
from enginehouse.local.ports import free_port
from enginehouse.local.triton_environment import check_triton
from tests.command_line import plain_environment, run_here
from tests.model_registry.conftest import eventually

STACK = """
servers:
  - name: vectors
    engines: [{weights: house-chat, runtime: encoder, name: house-vectors}]
models: [{name: v, weights: house-chat, modality: embedding}]
deployments: [{name: v, model: v, server: vectors, target: house-vectors}]
"""

pytestmark = pytest.mark.skipif(check_triton() is not None, reason="the real Triton cannot run here")


class Served:
    """The command, in a process of its own."""

    def __init__(self, folder: Path) -> None:
        (folder / "stack.yaml").write_text(STACK)
        self.port = free_port()
        self.output = folder / "output"
        options = ["--stack", str(folder / "stack.yaml"), "--state-dir", str(folder / "state")]
        ports = ["--http-port", str(self.port), "--grpc-port", "0", "--metrics-port", "0"]
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "enginehouse", "triton", "--host", "0.0.0.0", *options, *ports],
                stdout=output,
                stderr=output,
                env=plain_environment(),
            )

    async def ready(self) -> None:
        """Returns once Triton and the command say so."""
        await eventually(lambda: asyncio.to_thread(self._is_ready), within_s=90, every_s=0.1)

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, self.output.read_text()
        return probe.problem(f"http://127.0.0.1:{self.port}/v2/health/ready", 0.0) is None and (
            "vectors is ready at" in self.output.read_text()
        )

    def descendants(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    served = Served(tmp_path)
    yield served
    if served.process.poll() is None:
        served.process.terminate()
        served.process.wait(30)


async def test_it_serves_until_asked_to_end(served: Served) -> None:
    """Ready by Triton's own word, its log on standard output; nothing of it stays."""
    await served.ready()
    below = served.descendants()
    served.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(served.process.wait, 60) == 0
    assert "Started HTTPService at 0.0.0.0" in served.output.read_text()
    assert not any(one.is_running() for one in below)


async def test_a_model_that_dies_ends_it(served: Served) -> None:
    """With status 1, so that its container is started again; Triton alone would call itself ready still."""
    await served.ready()
    stub = next(one for one in served.descendants() if "stub" in one.name())
    stub.kill()
    assert await asyncio.to_thread(served.process.wait, 60) == 1
    assert "vectors ended with status" in served.output.read_text()


def test_a_server_that_the_stack_has_not_is_named() -> None:
    """With those that it has."""
    done = run_here("triton", "--server", "nobody")
    assert done.returncode == 2
    assert "no server 'nobody'" in done.stderr
    assert "triton-0, triton-1" in done.stderr
