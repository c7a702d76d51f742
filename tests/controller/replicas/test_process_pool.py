"""A pool of processes finds what it started, whoever did, and ends it whole."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest

from controller.actuators.catalogue import Surroundings, actuator_of
from controller.actuators.port import Actuator, ActuatorError, Running, Workload
from controller.actuators.process import end_all
from controller.replicas.fence import Fence, NotLeadingError
from model_registry.leadership import Leadership, boot_s
from model_registry.pools import Pool
from model_registry.replicas import Replica
from telemetry.process_stat import stat_of
from tests.controller.replicas.conftest import Processes
from tests.model_registry.conftest import until

REPLICA = Replica(name="d.00000a", deployment="d", model="m", pool="p")
TWO = "import subprocess, sys, time; subprocess.Popen([sys.executable, *sys.argv[2:]]); time.sleep(600)"
CHILD = "import sys, time; open(sys.argv[1], 'w').write(str(__import__('os').getpid())); time.sleep(600)"
STUBBORN = (
    "import signal, socket, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); time.sleep(600)"
)


def pool_of(processes: Processes, pool: Pool | None = None, token: int = 1) -> Actuator:
    """As a controller with this claim has it."""
    fence = Fence(0.0)
    fence.renew(Leadership("c", token))
    surroundings = Surroundings("test", processes.state, dict(os.environ), fence.token)
    actuator = actuator_of(pool or processes.pool, surroundings)
    assert not isinstance(actuator, Workload)
    return actuator


@pytest.fixture
async def running(processes: Processes) -> AsyncIterator[Running]:
    actuator = pool_of(processes)
    yield await actuator.start(REPLICA, processes.deployment)
    with suppress(ActuatorError):
        await actuator.stop(REPLICA, None)


async def test_it_listens_where_it_says(processes: Processes, running: Running) -> None:
    assert running.server is not None
    async with aiohttp.ClientSession() as session, session.get(running.server.http) as response:
        assert response.status == 200
    assert running.server.grpc is None, "no port that the command does not name"


async def test_a_later_leader_finds_it_and_starts_no_second(processes: Processes, running: Running) -> None:
    later = pool_of(processes, token=2)
    assert [one.replica for one in (await later.found()).found] == [REPLICA.name]
    again = await asyncio.gather(*(later.start(REPLICA, processes.deployment) for _ in range(3)))
    assert [running] * 3 == again
    assert len(processes.pids()) == 1


async def test_starts_at_the_same_time_start_it_once(processes: Processes) -> None:
    """Also by leaders that know nothing of each other."""
    leaders = [pool_of(processes, token=token) for token in (1, 1, 2)]
    began = await asyncio.gather(
        *(one.start(REPLICA, processes.deployment) for one in leaders), return_exceptions=True
    )
    assert len(processes.pids()) == 1
    assert len({one.handle for one in began if isinstance(one, Running)}) == 1
    await leaders[-1].stop(REPLICA, None)
    assert processes.pids() == []


async def test_a_later_leader_ends_it_and_nothing_is_left(processes: Processes, running: Running) -> None:
    later = pool_of(processes, token=2)
    await later.stop(REPLICA, None)
    assert processes.pids() == []
    assert (await later.found()).found == []
    assert [path for path in processes.state.rglob("*") if path.is_file()] == []
    await later.stop(REPLICA, None)


async def test_one_that_ignores_sigterm_is_killed(processes: Processes) -> None:
    pool = processes.pool_of(sys.executable, "-S", "-c", STUBBORN, "{http_port}")
    patient = pool.model_copy(update={"actuator": pool.actuator.model_copy(update={"stop_timeout_s": 0.2})})
    actuator = pool_of(processes, patient)
    started = await actuator.start(REPLICA, processes.deployment)
    await actuator.stop(REPLICA.model_copy(update={"handle": started.handle}), None)
    assert stat_of(int(started.handle.split(":")[1])) is None


async def test_what_it_started_ends_with_it(processes: Processes, tmp_path: Path) -> None:
    """Children go with their server's session, also when the server itself has died before."""
    for dies_first in (False, True):
        child = tmp_path / f"child-{dies_first}"
        tail = ("-S", "-c", CHILD, str(child))
        pool = processes.pool_of(sys.executable, "-S", "-c", f"{TWO}", "{http_port}", *tail)
        actuator = pool_of(processes, pool)
        starting = asyncio.create_task(actuator.start(REPLICA, processes.deployment))
        await until(lambda at=child: at.exists() and at.read_text() != "")  # type: ignore[misc]
        starting.cancel()
        await asyncio.wait([starting])
        pid = int(child.read_text())
        if dies_first:
            (found,) = (await actuator.found()).found
            os.kill(int(found.handle.split(":")[1]), signal.SIGKILL)
        await actuator.stop(REPLICA, None)
        assert stat_of(pid) is None


async def test_a_command_that_ends_is_told_with_its_last_words(processes: Processes) -> None:
    words = "import sys; sys.exit('no such GPU')"
    actuator = pool_of(processes, processes.pool_of(sys.executable, "-S", "-c", words))
    with pytest.raises(ActuatorError, match="ended while it started; its last words: no such GPU"):
        await actuator.start(REPLICA, processes.deployment)
    await actuator.stop(REPLICA, None)
    assert (await actuator.found()).found == []


async def test_a_program_that_is_not_there_is_told_by_name(processes: Processes) -> None:
    actuator = pool_of(processes, processes.pool_of("no-such-server"))
    with pytest.raises(ActuatorError, match="no program 'no-such-server': write its whole path"):
        await actuator.start(REPLICA, processes.deployment)


async def test_a_leader_whose_claim_has_lapsed_does_nothing(processes: Processes, running: Running) -> None:
    fence = Fence(margin_s=1.0)
    surroundings = Surroundings("test", processes.state, dict(os.environ), fence.token)
    actuator = actuator_of(processes.pool, surroundings)
    assert not isinstance(actuator, Workload)
    other = REPLICA.model_copy(update={"name": "d.00000b"})
    for leadership in (None, Leadership("c", 1, boot_s() + 0.9)):
        fence.renew(leadership)
        with pytest.raises(NotLeadingError):
            await actuator.start(other, processes.deployment)
        with pytest.raises(NotLeadingError):
            await actuator.stop(REPLICA, None)
    assert len(processes.pids()) == 1


async def test_braces_of_other_things_stay(processes: Processes, tmp_path: Path) -> None:
    told = tmp_path / "told"
    words = "import sys; open(sys.argv[1], 'w').write(' '.join(sys.argv[2:]))"
    command = ("-S", "-c", words, str(told), "{replica}", '{"a": {"b": 1}}', "{model}", "{target}")
    actuator = pool_of(processes, processes.pool_of(sys.executable, *command))
    with pytest.raises(ActuatorError):
        await actuator.start(REPLICA, processes.deployment)
    assert told.read_text() == 'd.00000a {"a": {"b": 1}} m m'


async def test_all_end_when_no_controller_is_left(processes: Processes) -> None:
    """What a local stack does at its end."""
    actuator = pool_of(processes)
    others = [REPLICA.model_copy(update={"name": f"d.00000{n}"}) for n in range(2)]
    await asyncio.gather(*(actuator.start(one, processes.deployment) for one in others))
    ended = await asyncio.to_thread(end_all, processes.state, 5.0)
    assert ended == [one.name for one in others]
    assert processes.pids() == []
    assert end_all(processes.state, 0.0) == []
