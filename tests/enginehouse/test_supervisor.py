"""Processes of the stack are kept running, and all end in reverse order."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError

from enginehouse.errors import ProcessError
from enginehouse.local.ports import free_port
from enginehouse.local.process_record import ProcessRecord
from enginehouse.local.redis import redis_service, redis_url, require_redis
from enginehouse.local.service import CommandService
from enginehouse.local.state_dir import StateDir
from enginehouse.local.supervisor import StackSupervisor, pause_before_restart
from telemetry.process_stat import stat_of

SLEEP = "import time; time.sleep(600)"
Eventually = Callable[[Callable[[], object]], Awaitable[None]]

STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); {SLEEP}"


def _service(state: StateDir, name: str, code: str = SLEEP, **more: object) -> CommandService:
    return CommandService(name, [sys.executable, "-c", code], state.log(name), **more)  # type: ignore[arg-type]


@pytest.fixture
async def supervisor(state: StateDir) -> AsyncIterator[StackSupervisor]:
    """Stopped at the end whatever happens."""
    supervisor = StackSupervisor(ProcessRecord(state.processes))
    yield supervisor
    supervisor.hurry()
    await supervisor.stop()


async def test_a_killed_process_runs_again(
    state: StateDir, supervisor: StackSupervisor, eventually: Eventually
) -> None:
    """A new pid, and the record knows it."""
    service = _service(state, "worker")
    await supervisor.start(service)
    first = service.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await eventually(lambda: service.pid not in (None, first))
    assert supervisor.restarts() == {"worker": 1}
    await eventually(lambda: str(service.pid) in state.processes.read_text())


async def test_a_session_that_was_ended_is_never_ended_again(
    state: StateDir, supervisor: StackSupervisor, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its number may be another program's by then."""
    ended: list[int] = []
    monkeypatch.setattr("enginehouse.local.service.end_session", ended.append)
    service = _service(state, "worker")
    await supervisor.start(service)
    first = service.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await eventually(lambda: service.pid not in (None, first))
    second = service.pid
    await supervisor.stop()
    assert ended == [first, second]


async def test_one_that_cannot_be_started_again_now_is_tried_later(
    state: StateDir, supervisor: StackSupervisor, eventually: Eventually, tmp_path: Path
) -> None:
    """A machine without a free process slot, or an installation being replaced, passes."""
    program = tmp_path / "program"
    program.symlink_to(sys.executable)
    service = CommandService("worker", [str(program), "-c", SLEEP], state.log("worker"))
    await supervisor.start(service)
    first = service.pid
    assert first is not None
    program.unlink()
    os.kill(first, signal.SIGKILL)
    await eventually(lambda: supervisor.restarts()["worker"] >= 2)
    program.symlink_to(sys.executable)
    await eventually(lambda: service.pid not in (None, first))


async def test_everything_ends_in_reverse_order(state: StateDir) -> None:
    """The gateway goes before what it needs."""
    order = state.root / "order"
    code = (
        "import signal, sys, time\n"
        f"def end(*_): open({str(order)!r}, 'a').write(sys.argv[1]); sys.exit()\n"
        "signal.signal(signal.SIGTERM, end); print('up', flush=True); time.sleep(600)"
    )
    supervisor = StackSupervisor(ProcessRecord(state.processes))
    services = []
    for stage, name in enumerate("abc"):
        log = state.log(name)

        async def up(log: Path = log) -> bool:
            return log.read_text() == "up\n"

        service = CommandService(name, [sys.executable, "-c", code, name], log, probe=up)
        services.append(service)
        await supervisor.start(service, stage)
    pids = [service.pid for service in services]
    await supervisor.stop()
    assert order.read_text() == "cba"
    assert all(pid is not None and stat_of(pid) is None for pid in pids)


async def test_haste_ends_what_ignores_sigterm(state: StateDir) -> None:
    """A second Ctrl-C does not wait for the grace."""
    log = state.log("stubborn")

    async def up() -> bool:
        return log.read_text() == "up\n"

    service = _service(state, "stubborn", STUBBORN, probe=up)
    supervisor = StackSupervisor(ProcessRecord(state.processes))
    await supervisor.start(service)
    pid = service.pid
    begun = time.monotonic()
    stopping = asyncio.create_task(supervisor.stop())
    await asyncio.sleep(0)
    supervisor.hurry()
    await stopping
    assert time.monotonic() - begun < 4.0
    assert pid is not None
    assert stat_of(pid) is None


async def test_a_process_that_cannot_start_shows_the_end_of_its_log(
    state: StateDir, supervisor: StackSupervisor
) -> None:
    """The operator sees why without looking for the file."""

    async def never() -> bool:
        return False

    with pytest.raises(ProcessError) as failed:
        await supervisor.start(_service(state, "bad", "raise SystemExit('no such card')", probe=never))
    assert "bad ended with status 1" in failed.value.message
    assert "no such card" in (failed.value.remedy or "")


async def test_redis_returns_with_its_data_at_its_port(
    state: StateDir, supervisor: StackSupervisor, eventually: Eventually
) -> None:
    """kill -9 costs at most the last second of writes, and no configuration."""
    password, port = "secret", free_port()
    service = redis_service(require_redis(), state.redis, port, password, state.log("redis"))
    await supervisor.start(service)
    async with Redis.from_url(redis_url(port, password)) as client:
        await client.set("kept", "yes")
        await _aof_synced(client)
    first = service.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await eventually(lambda: service.pid not in (None, first))
    await service.ready()
    async with Redis.from_url(redis_url(port, password)) as client:
        assert await client.get("kept") == b"yes"


async def _aof_synced(client: Redis) -> None:
    async with asyncio.timeout(10):
        while (await client.info("persistence"))["aof_current_size"] == 0:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_redis_refuses_without_the_password(state: StateDir, supervisor: StackSupervisor) -> None:
    """Another user of this machine gets nowhere, and the arguments do not tell."""
    port = free_port()
    service = redis_service(require_redis(), state.redis, port, "secret", state.log("redis"))
    await supervisor.start(service)
    async with Redis(port=port, retry=Retry(NoBackoff(), 0)) as client:
        with pytest.raises(AuthenticationError):
            await client.ping()
    assert b"secret" not in Path(f"/proc/{service.pid}/cmdline").read_bytes()


def test_pauses_grow_to_a_limit() -> None:
    """0.1 s doubles up to 5 s."""
    assert [pause_before_restart(n) for n in (0, 1, 2, 20)] == [0.1, 0.2, 0.4, 5.0]
