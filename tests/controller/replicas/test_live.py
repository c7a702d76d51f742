"""Controllers bring real processes up and down, through crashes of servers and of leaders."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from controller.run import Controller
from model_registry.errors import RegistryUnavailableError
from model_registry.snapshot import Snapshot
from model_registry.store import RegistryStore
from tests.controller.replicas.conftest import MODEL, ByHand, Processes, Told
from tests.model_registry.conftest import eventually, until


@asynccontextmanager
async def running(controller: Controller) -> AsyncIterator[Controller]:
    task = asyncio.create_task(controller.run())
    yield controller
    task.cancel()
    await asyncio.wait([task])


def snapshot_where(store: RegistryStore, true: Callable[[Snapshot], bool]) -> Awaitable[list[Snapshot]]:
    async def ask() -> list[Snapshot]:
        try:
            snapshot = await store.load()
        except RegistryUnavailableError:
            return []
        return [snapshot] if true(snapshot) else []

    return eventually(ask)


def states(snapshot: Snapshot) -> list[str]:
    return sorted(one.state for one in snapshot.replicas.get("d", ()))


def serving(snapshot: Snapshot) -> int:
    return sum(one.state == "ready" for one in snapshot.endpoints.get("m", ()))


async def test_replicas_follow_what_is_wanted(
    store: RegistryStore, processes: Processes, scaler: ByHand, told: Told
) -> None:
    """From none to three and back to one and none, each with a process and an endpoint of its own."""
    await store.apply([MODEL, processes.pool, processes.deployment])
    async with running(processes.controller(store, scaler, told)):
        (snapshot,) = await snapshot_where(store, lambda s: "d" in s.scaling)
        assert states(snapshot) == []
        scaler.wanted = 3
        (snapshot,) = await snapshot_where(store, lambda s: states(s) == ["ready"] * 3 and serving(s) == 3)
        assert len(processes.pids()) == 3
        status = snapshot.scaling["d"]
        assert (status.wanted, status.ready, status.reason) == (3, 3, "by hand")
        assert status.cold_start_s is not None
        assert 0 < status.cold_start_s < 10
        scaler.wanted = 1
        await snapshot_where(store, lambda s: states(s) == ["ready"])
        await until(lambda: len(processes.pids()) == 1)
        scaler.wanted = 0
        await snapshot_where(store, lambda s: states(s) == [] and serving(s) == 0)
        assert processes.pids() == []
    assert not list(processes.state.rglob("*.json"))
