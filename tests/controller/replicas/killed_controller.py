"""A controller that is killed at a given moment of an act, for `test_live`.

Arguments: URL of Redis, folder of the pool, `before` or `after`, `start` or `stop`, how many are wanted.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from controller.actuators.process import ProcessPool
from model_registry.config import RegistryConfig
from model_registry.connection import connect
from model_registry.store import RegistryStore
from tests.controller.replicas.conftest import ByHand, Processes, Told


def killed(act: Callable[..., Awaitable[Any]], moment: str) -> Callable[..., Awaitable[Any]]:
    """`act`, which this process does not survive."""

    async def acting(*given: Any) -> Any:
        if moment == "after":
            await act(*given)
        os.kill(os.getpid(), signal.SIGKILL)

    return acting


async def main(url: str, folder: str, moment: str, verb: str, wanted: str) -> None:
    """Lead until the act."""
    setattr(ProcessPool, verb, killed(getattr(ProcessPool, verb), moment))
    config = RegistryConfig(redis_url=url, name="test", command_timeout_s=5.0)
    store = RegistryStore.of(connect(config), config)
    await Processes(Path(folder)).controller(store, ByHand(int(wanted)), Told(store)).run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
