"""One real stack for all whole-stack tests: real Triton, real Redis, two workers, by `enginehouse up`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.stack.stack import Stack, is_alive


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """`enginehouse up`, ready; Ctrl-C at the end must leave no process behind."""
    directory = tmp_path_factory.mktemp("stack")
    with Stack.start(directory, "--workers", "2") as running:
        yield running
        processes = running.processes()
        assert running.stop() == 0
    left = [line for process, line in processes if is_alive(process)]
    assert not left, f"processes left behind: {left}"
