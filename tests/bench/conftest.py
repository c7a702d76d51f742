"""The benchmark's C tools need a compiler, and Triton its platform; without, everything else is tested."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.build import BenchError, compiler
from bench.processes import Cores
from bench.stub import Stub
from enginehouse.local.triton_environment import check_triton

collect_ignore = ["test_triton.py"] if check_triton() else []
try:
    compiler()
except BenchError:
    collect_ignore = ["test_tools.py", "test_triton.py"]


@pytest.fixture
def cores() -> Cores:
    return Cores.of_this_machine()


@pytest.fixture
def stub(cores: Cores, tmp_path: Path) -> Iterator[Stub]:
    started = Stub(cores.load, tmp_path / "stub.log")
    yield started
    started.close()
