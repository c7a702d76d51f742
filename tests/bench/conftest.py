"""The benchmark's C tools need a compiler; a machine without one runs the tests of everything else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.build import BenchError, compiler
from bench.processes import Cores
from bench.stub import Stub

try:
    compiler()
except BenchError:
    collect_ignore = ["test_tools.py"]


@pytest.fixture
def cores() -> Cores:
    return Cores.of_this_machine()


@pytest.fixture
def stub(cores: Cores, tmp_path: Path) -> Iterator[Stub]:
    started = Stub(cores.load, tmp_path / "stub.log")
    yield started
    started.close()
