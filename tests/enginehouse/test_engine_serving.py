"""`enginehouse engines serve`: a fetched engine on a real Triton, until Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
import sys
import urllib.request
from pathlib import Path

import pytest

from engine_builder.package import fetch
from engine_builder.package.signing import Trust
from enginehouse.engine_serving import serve
from enginehouse.errors import CommandError
from enginehouse.local.triton import TritonPorts
from tests.engine_builder.packages import SIGNER, emulated_package

READY_WITHIN_S = 60


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return emulated_package(tmp_path)


async def test_a_fetched_engine_is_served_until_ctrl_c(package: Path, tmp_path: Path) -> None:
    fetch(str(package), tmp_path / "served", Trust.of(SIGNER))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "enginehouse", "engines", "serve", str(tmp_path / "served")),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        url = ""
        async with asyncio.timeout(READY_WITHIN_S):
            while not url:
                line = (await process.stdout.readline()).decode()
                assert line, "it ended before it was ready"
                url = line.split()[1] if line.startswith("http:") else ""
        with await asyncio.to_thread(urllib.request.urlopen, f"{url}/v2/models/ensemble/ready") as answer:
            assert answer.status == 200
    finally:
        process.send_signal(signal.SIGINT)
        _, status = await asyncio.gather(process.stdout.read(), process.wait())
    assert status == 0
    with pytest.raises(OSError, match="refused"):
        await asyncio.to_thread(urllib.request.urlopen, f"{url}/v2/health/ready")


async def test_a_folder_that_was_not_fetched_is_refused(package: Path, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="serve/repository is not there"):
        await serve(package, TritonPorts(), tmp_path / "log", print)
