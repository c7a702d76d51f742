"""The containers of a pool: one for each replica, found again by whoever leads, none left behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from controller.actuators.docker.container import Owner, container_name, description, free_gpus, server_of
from controller.actuators.docker.pool import DockerPool
from controller.actuators.port import ActuatorError, Found
from model_registry.entities import Deployment, Scaling, ServerRef
from model_registry.pools import DockerActuator, Pool
from model_registry.replicas import Replica
from tests.controller.actuators.docker.daemon import DIES, HANGS, LISTENS, NO_PROGRAM, Daemon

CHAT = Deployment(name="chat", model="m", target="engine", scaling=Scaling(pool="boxes", max_replicas=8))


def replica(name: str = "chat.00000a") -> Replica:
    return Replica(name=name, deployment="chat", model="m", pool="boxes")


def pool_of(**fields: Any) -> Pool:
    given = {"type": "docker", "image": LISTENS, "stop_timeout_s": 1, **fields}
    return Pool(name="boxes", actuator=DockerActuator.model_validate(given))


def docker_pool(daemon: Daemon, registry: str = "house", **fields: Any) -> DockerPool:
    return DockerPool(pool_of(**{"url": daemon.url, **fields}), registry, lambda: 1)


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[Daemon]:
    async with Daemon(tmp_path / "docker.sock").running() as daemon:
        yield daemon


@pytest.fixture
async def pool(daemon: Daemon) -> AsyncIterator[DockerPool]:
    pool = docker_pool(daemon)
    yield pool
    await pool.close()


async def test_a_replica_is_a_container_that_listens(pool: DockerPool, daemon: Daemon) -> None:
    """Labelled with registry and replica; its address is the port that Docker gave."""
    running = await pool.start(replica(), CHAT)
    ((container, one),) = daemon.containers.items()
    port = one["NetworkSettings"]["Ports"]["8000/tcp"][0]["HostPort"]
    assert running == (ServerRef(http=f"http://127.0.0.1:{port}"), container[:12], None)
    labels = one["Config"]["Labels"]
    assert (labels["enginehouse.registry"], labels["enginehouse.replica"]) == ("house", "chat.00000a")
    assert (await pool.found()).found == [Found("chat.00000a", running.handle)]


async def test_a_start_that_was_begun_is_taken_over(pool: DockerPool, daemon: Daemon) -> None:
    """By another leader, whether the first had run it or only created it; nothing is started twice."""
    other, gone = docker_pool(daemon), docker_pool(daemon, image=HANGS)
    first = await pool.start(replica(), CHAT)
    assert await other.start(replica(), CHAT) == first
    half = asyncio.create_task(gone.start(replica("chat.00000b"), CHAT))
    await daemon.made(2)
    half.cancel()
    await asyncio.gather(half, return_exceptions=True)
    await gone.close()
    assert {one.replica for one in (await other.found()).found} == {"chat.00000a", "chat.00000b"}
    await asyncio.gather(*(other.stop(replica(name), CHAT) for name in ("chat.00000a", "chat.00000b")))
    assert len(daemon.created) == 2
    assert not daemon.containers
    await other.close()


async def test_two_leaders_at_once_make_one_container(daemon: Daemon) -> None:
    """The name is taken for the slower one, who finds the container then."""
    pools = [docker_pool(daemon) for _ in range(4)]
    found = await asyncio.gather(*(pool.start(replica(), CHAT) for pool in pools))
    assert len(set(found)) == len(daemon.containers) == 1
    for pool in pools:
        await pool.close()


async def test_a_stopped_replica_is_gone_and_may_be_stopped_again(pool: DockerPool, daemon: Daemon) -> None:
    """Also one that never was, and one whose deployment was deleted."""
    await pool.start(replica(), CHAT)
    for _ in range(2):
        await pool.stop(replica(), None)
        assert not daemon.containers


async def test_containers_of_others_are_left_alone(pool: DockerPool, daemon: Daemon) -> None:
    """Of another registry on the same daemon, even where it has a replica of the same name."""
    other = docker_pool(daemon, registry="shed")
    await other.start(replica(), CHAT)
    assert (await pool.found()).found == []
    await pool.stop(replica(), CHAT)
    assert daemon.names() == {"enginehouse-shed-chat.00000a"}
    await other.close()


async def test_what_has_ended_is_not_found_and_taken_away(
    pool: DockerPool, daemon: Daemon, caplog: pytest.LogCaptureFixture
) -> None:
    """What its log said last is in ours."""
    await pool.start(replica(), CHAT)
    await daemon.end(daemon.created[0])
    assert (await pool.found()).found == []
    assert not daemon.containers
    assert "out of memory" in caplog.records[-1].__dict__["said"]


async def test_one_that_ends_while_it_starts_says_why(daemon: Daemon) -> None:
    """By exit status and log; it is there for `stop`."""
    pool = docker_pool(daemon, image=DIES)
    with pytest.raises(ActuatorError, match=r"(?s)status 137 .*out of memory"):
        await pool.start(replica(), CHAT)
    await pool.stop(replica(), CHAT)
    assert not daemon.containers
    await pool.close()


async def test_one_that_never_listens_is_given_up(daemon: Daemon) -> None:
    """After the pool's time."""
    pool = docker_pool(daemon, image=HANGS, start_timeout_s=0.3)
    with pytest.raises(ActuatorError, match=r"(?s)did not answer within 0.3 s.*loading"):
        await pool.start(replica(), CHAT)
    await pool.close()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"image": "none:1"}, r"No such image.*docker pull"),
        ({"gpus": 1}, r"could not select device driver.*NVIDIA Container Toolkit.*gpus` to 0"),
        ({"network": "nowhere"}, r"network nowhere not found.*docker network create"),
        ({"image": NO_PROGRAM}, r"executable file not found.*actuator.command"),
        (
            {"url": "unix:///nowhere/docker.sock"},
            r"/nowhere/docker.sock.*is a daemon running there.*DOCKER_HOST",
        ),
    ],
)
async def test_a_refusal_says_what_to_do(daemon: Daemon, fields: dict[str, Any], said: str) -> None:
    """What could not be started is not left."""
    daemon.refuse_gpus = True
    pool = docker_pool(daemon, **fields)
    with pytest.raises(ActuatorError, match=f"(?s){said}"):
        await pool.start(replica(), CHAT)
    assert not daemon.containers
    await pool.close()


async def test_a_name_that_somebody_else_has_is_named(daemon: Daemon) -> None:
    """That container stays."""
    taken = {"Image": LISTENS, "Labels": {}}
    daemon.containers["f" * 64] = {
        "Name": "/enginehouse-house-chat.00000a",
        "Config": taken,
        "State": {"Status": "running"},
    }
    pool = docker_pool(daemon)
    with pytest.raises(ActuatorError, match=r"already in use.*remove or rename"):
        await pool.start(replica(), CHAT)
    assert list(daemon.containers) == ["f" * 64]
    await pool.close()


async def test_who_may_not_act_does_nothing(daemon: Daemon) -> None:
    """The fence is asked before each act."""

    def fence() -> None:
        raise PermissionError

    pool = DockerPool(pool_of(url=daemon.url), "house", fence)
    with pytest.raises(PermissionError):
        await pool.start(replica(), CHAT)
    assert not daemon.created
    await pool.close()


async def test_replicas_do_not_share_a_gpu(daemon: Daemon) -> None:
    """Docker's own count would give each of them the first; what is free again is used again."""
    pool = docker_pool(daemon, gpus=2)
    names = ["chat.00000a", "chat.00000b", "chat.00000c"]
    await asyncio.gather(*(pool.start(replica(name), CHAT) for name in names[:2]))
    devices = [one["HostConfig"]["DeviceRequests"][0]["DeviceIDs"] for one in daemon.containers.values()]
    assert sorted(devices) == [["0", "1"], ["2", "3"]]
    first = next(iter(daemon.containers.values()))
    await pool.stop(replica(first["Config"]["Labels"]["enginehouse.replica"]), CHAT)
    await pool.start(replica(names[2]), CHAT)
    last = daemon.containers[daemon.created[-1]]
    assert last["HostConfig"]["DeviceRequests"] == first["HostConfig"]["DeviceRequests"]
    await pool.close()


def test_free_gpus_are_the_lowest_that_nobody_has() -> None:
    """Holes are filled."""
    assert free_gpus([0, 2, 3], 3) == (1, 4, 5)


def test_the_description_fills_in_what_is_meant() -> None:
    """In command and environment; JSON's own braces stay. In a network nothing is published."""
    spec = DockerActuator(
        type="docker",
        image="i:1",
        command=("serve", "--port={http_port}", '{"model": "{target}"}'),
        environment={"NAME": "{replica}"},
        network="house",
        grpc_port=8001,
    )
    body = description(spec, Owner("house", "boxes"), replica(), CHAT, ())
    assert body["Cmd"] == ["serve", "--port=8000", '{"model": "engine"}']
    assert body["Env"] == ["NAME=chat.00000a"]
    assert body["HostConfig"]["NetworkMode"] == "house"
    assert "PortBindings" not in body["HostConfig"]
    assert body["HostConfig"]["RestartPolicy"] == {"Name": "no"}
    named = {"Name": f"/{container_name('house', 'Team/Chat.00000a')}"}
    assert server_of(spec, named) == ServerRef(
        http="http://enginehouse-house-team-chat.00000a:8000", grpc="enginehouse-house-team-chat.00000a:8001"
    )


@pytest.mark.parametrize(
    ("host", "bound"), [("127.0.0.1", "127.0.0.1"), ("gpu7.example", ""), ("::1", "::1")]
)
def test_ports_are_published_as_far_as_the_host_is_reached(host: str, bound: str) -> None:
    """Loopback's on loopback alone; the address that gateways use is the pool's."""
    spec = DockerActuator(type="docker", image="i:1", host=host, metrics_port=8002)
    body = description(spec, Owner("house", "boxes"), replica(), CHAT, ())
    assert body["HostConfig"]["PortBindings"]["8000/tcp"] == [{"HostIp": bound, "HostPort": ""}]
    ports = {"8000/tcp": [{"HostPort": "49153"}], "8002/tcp": [{"HostPort": "49154"}]}
    found = server_of(spec, {"NetworkSettings": {"Ports": ports}})
    assert found is not None
    assert found.http == (f"http://[{host}]:49153" if ":" in host else f"http://{host}:49153")
    assert (found.metrics or "").endswith(":49154/metrics")
