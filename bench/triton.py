"""A real Triton with the benchmark's model, on the load's core."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import triton_schema
from bench.build import BenchError
from bench.processes import Cores
from engine_builder.repository import ModelSpec, write_repository
from enginehouse.errors import CommandError
from enginehouse.local.triton import TritonProcess
from enginehouse.local.triton_environment import ensure_environment


@contextmanager
def real_triton(
    cores: Cores, folder: Path, model: str, interval_us: int = 0, spec: ModelSpec | None = None
) -> Iterator[TritonProcess]:
    """Runs until the block ends; yields once `model`, the stub or that of `spec`, is ready.

    Raises BenchError where Triton cannot run.
    """
    repository = folder / "repository"
    write_repository(repository, [spec or triton_schema.spec(model, interval_us)])
    with asyncio.Runner() as loop:
        try:
            environment = loop.run(ensure_environment())
            triton = TritonProcess("triton", environment, repository, folder / "triton.log", load=[model])
            loop.run(_start(triton, cores.load))
        except CommandError as error:
            raise BenchError(f"{error.message}; {error.remedy}") from error
        try:
            yield triton
        finally:
            loop.run(triton.stop())


async def _start(triton: TritonProcess, core: int) -> None:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})  # inherited by the server's every thread
    try:
        await triton.start()
    finally:
        os.sched_setaffinity(0, allowed)
    try:
        await triton.ready()
    except BaseException:
        await triton.stop()
        raise
