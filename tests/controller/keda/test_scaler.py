"""KEDA is answered over a real channel, by bytes as its documentation has them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc  # type: ignore[import-untyped]
import pytest

from controller.keda.messages import METHODS, SERVICE
from controller.keda.server import KedaScaler
from model_registry.entities import Deployment, Model, Scaling, ServerRef
from model_registry.replicas import ScalingStatus
from model_registry.snapshot import Snapshot, Stored

CHAT = Deployment(name="chat", model="m", scaling=Scaling(pool="k8s", min_replicas=0, max_replicas=8))
FIXED = Deployment(name="fixed", model="m", servers=(ServerRef(http="http://x:1"),))
NEW = Deployment(name="new", model="m", scaling=Scaling(pool="k8s"))


def snapshot(wanted: int, *more: Stored) -> Snapshot:
    status = ScalingStatus(name="chat", model="m", pool="k8s", wanted=wanted)
    return Snapshot.of(wanted, [Model(name="m", context_length=9), CHAT, FIXED, NEW, status, *more])


@pytest.fixture
async def scaler() -> AsyncIterator[KedaScaler]:
    scaler = KedaScaler()
    await scaler.start("127.0.0.1", 0)
    yield scaler
    await scaler.close()


@pytest.fixture
async def channel(scaler: KedaScaler) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{scaler.port}") as channel:
        yield channel


# -- KEDA's own bytes. A tag is number << 3 | type; 0: varint, 1: 64 bits, 2: with its length (protobuf.dev) -


def field(number: int, value: bytes) -> bytes:
    return bytes([number << 3 | 2, len(value)]) + value


def reference(**metadata: str) -> bytes:
    entries = (field(3, field(1, key.encode()) + field(2, value.encode())) for key, value in metadata.items())
    return field(1, b"chat-scaler") + field(2, b"llm") + b"".join(entries)


async def asked(channel: grpc.aio.Channel, method: str, request: bytes) -> bytes:
    answer: bytes = await channel.unary_unary(f"/externalscaler.ExternalScaler/{method}")(request)
    return answer


METRIC = field(1, b"enginehouse-wanted-replicas")
DOUBLES = {1: b"\x00\x00\x00\x00\x00\x00\xf0\x3f", 3: b"\x00\x00\x00\x00\x00\x00\x08\x40"}
"""Little-endian."""


async def test_the_bytes_are_those_of_the_documented_contract(
    scaler: KedaScaler, channel: grpc.aio.Channel
) -> None:
    scaler.registry_changed(snapshot(3))
    request = reference(scalerAddress="enginehouse-controller:9090", deployment="chat")
    assert await asked(channel, "IsActive", request) == b"\x08\x01"
    spec = METRIC + b"\x10\x01" + b"\x19" + DOUBLES[1]
    assert await asked(channel, "GetMetricSpec", request) == field(1, spec)
    value = METRIC + b"\x10\x03" + b"\x19" + DOUBLES[3]
    metrics = field(1, request) + field(2, b"enginehouse-wanted-replicas")
    assert await asked(channel, "GetMetrics", metrics) == field(1, value)


async def test_none_wanted_is_not_active(scaler: KedaScaler, channel: grpc.aio.Channel) -> None:
    scaler.registry_changed(snapshot(0))
    request = reference(deployment="chat")
    assert await asked(channel, "IsActive", request) == b""
    answer = METHODS["GetMetrics"].response.FromString(await asked(channel, "GetMetrics", field(1, request)))
    assert [value.metricValue for value in answer.metricValues] == [0]


@pytest.mark.parametrize(
    ("metadata", "code", "told"),
    [
        ({"deploymnt": "chat"}, "INVALID_ARGUMENT", "set metadata.deployment"),
        ({"deployment": "  "}, "INVALID_ARGUMENT", "set metadata.deployment"),
        ({"deployment": "chatt"}, "NOT_FOUND", "'chatt' is not in the registry; scaled ones are: chat, new"),
        ({"deployment": "fixed"}, "NOT_FOUND", "'fixed' has no scaling"),
        ({"deployment": "new"}, "UNAVAILABLE", "nothing has been decided yet about deployment 'new'"),
    ],
)
@pytest.mark.parametrize("method", ["IsActive", "GetMetricSpec", "GetMetrics"])
async def test_what_cannot_be_answered_is_an_error_and_never_zero(
    scaler: KedaScaler,
    channel: grpc.aio.Channel,
    method: str,
    metadata: dict[str, str],
    code: str,
    told: str,
) -> None:
    scaler.registry_changed(snapshot(3))
    request = reference(**metadata)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asked(channel, method, field(1, request) if method == "GetMetrics" else request)
    assert caught.value.code().name == code
    assert told in caught.value.details()


async def test_before_the_registry_was_read_nothing_is_told(channel: grpc.aio.Channel) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asked(channel, "IsActive", reference(deployment="chat"))
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


def stream(channel: grpc.aio.Channel, **metadata: str) -> grpc.aio.UnaryStreamCall:
    method = METHODS["StreamIsActive"]
    call = channel.unary_stream(
        f"/{SERVICE}/StreamIsActive", method.request.SerializeToString, method.response.FromString
    )
    return call(method.request(name="chat-scaler", namespace="llm", scalerMetadata=metadata))


async def told(call: grpc.aio.UnaryStreamCall, count: int) -> list[bool]:
    async with asyncio.timeout(10):
        return [(await call.read()).result for _ in range(count)]


async def test_a_stream_tells_at_once_and_then_changes_only(
    scaler: KedaScaler, channel: grpc.aio.Channel
) -> None:
    def change(*numbers: int) -> None:
        for number in numbers:
            scaler.registry_changed(snapshot(number))

    change(0)
    call = stream(channel, deployment="chat")
    assert await told(call, 1) == [False]
    change(0, 0, 2)
    assert await told(call, 1) == [True]
    change(3, 1, 0)
    assert await told(call, 1) == [False]
    call.cancel()


async def test_a_stream_ends_with_the_deployment(scaler: KedaScaler, channel: grpc.aio.Channel) -> None:
    scaler.registry_changed(snapshot(1))
    call = stream(channel, deployment="chat")
    assert await told(call, 1) == [True]
    scaler.registry_changed(Snapshot.of(9, [Model(name="m", context_length=9)]))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await told(call, 1)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


async def test_what_newer_releases_ask_for_is_left_out_as_the_contract_allows(
    scaler: KedaScaler, channel: grpc.aio.Channel
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in channel.unary_stream(f"/{SERVICE}/StreamMetricSpec")(reference(deployment="chat")):
            pass
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


async def test_closing_ends_open_streams(channel: grpc.aio.Channel, scaler: KedaScaler) -> None:
    scaler.registry_changed(snapshot(1))
    call = stream(channel, deployment="chat")
    assert await told(call, 1) == [True]
    await scaler.close()
    with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
        await told(call, 1)


async def test_a_port_that_is_taken_is_told(scaler: KedaScaler) -> None:
    with pytest.raises(OSError, match="is taken"):
        await KedaScaler().start("127.0.0.1", scaler.port)
