"""gRPC calls against a real server that answers strangely, a silent listener, and addresses that go away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc  # type: ignore[import-untyped]
import pytest
from tritonclient.grpc import service_pb2

from inference.client import ModelClients
from inference.errors import InferenceError, ProtocolError, ServerUnreachableError, StreamBrokenError
from inference.grpc_stream import GrpcStreams
from inference.lane import TritonReader
from inference.lanes import lane_of
from inference.push_http import Timeouts
from inference.request import InferenceRequest
from inference.schema import Schema, Tensor
from inference.sink import Call, Sink
from model_registry.entities import Endpoint
from tests.inference.recording import RecordingSink

SCHEMA = Schema(
    "tensorrt_llm",
    "m",
    {name: Tensor("INT32", (-1, 1)) for name in ("input_ids", "input_lengths", "request_output_len")},
    {"output_ids": Tensor("INT32", (-1, 1)), "sequence_length": Tensor("INT32", (-1, 1))},
    decoupled=True,
)
QUICK = Timeouts(connect_s=0.3, first_byte_s=60.0)


class Answering:
    """Gives every request the same responses; holds the last one back until `gate` is set."""

    def __init__(self, responses: list[Any]) -> None:
        self.responses = responses
        self.gate = asyncio.Event()
        self.gate.set()

    async def answer(self, requests: AsyncIterator[Any], _: Any) -> AsyncIterator[Any]:
        async for _request in requests:
            *first, last = self.responses
            for response in first:
                yield response
            await self.gate.wait()
            yield last

    def handler(self) -> Any:
        method = grpc.stream_stream_rpc_method_handler(
            self.answer,
            service_pb2.ModelInferRequest.FromString,
            service_pb2.ModelStreamInferResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(
            "inference.GRPCInferenceService", {"ModelStreamInfer": method}
        )


def response(ids: bytes | None, *, final: bool = False) -> Any:
    """One streamed response with `output_ids` of these raw bytes."""
    answer = service_pb2.ModelStreamInferResponse()
    answer.infer_response.parameters["triton_final_response"].bool_param = final
    if ids is not None:
        answer.infer_response.outputs.add(name="output_ids", datatype="INT32", shape=[1, 1])
        answer.infer_response.raw_output_contents.append(ids)
    return answer


TOKEN = response(b"\x07\x00\x00\x00")
END = response(None, final=True)


@asynccontextmanager
async def served(servicer: Answering) -> AsyncIterator[str]:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((servicer.handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


def endpoint(address: str) -> Endpoint:
    return Endpoint(
        name=address,
        deployment="d",
        model="m",
        profile="balanced",
        lane="tensorrt_llm",
        target="m",
        http="http://127.0.0.1:9",
        grpc=address,
        transport="grpc",
        server_schema=SCHEMA.as_dict(),
    )


def ask(streams: GrpcStreams, address: str, sink: RecordingSink, lane: Any = None) -> Call:
    request = InferenceRequest(id="r", model="m", stream=False, max_tokens=1, prompt_ids=[1])
    return streams.start(endpoint(address), lane or lane_of(SCHEMA), SCHEMA, request, sink)


async def ended(sink: RecordingSink) -> RecordingSink:
    async with asyncio.timeout(5):
        await sink.over.wait()
    return sink


@pytest.fixture
async def streams() -> AsyncIterator[GrpcStreams]:
    streams = GrpcStreams(QUICK)
    yield streams
    await streams.close()


async def test_an_answer_ends_cleanly(streams: GrpcStreams) -> None:
    async with served(Answering([TOKEN, END])) as address:
        sink = RecordingSink()
        ask(streams, address, sink)
        await ended(sink)
    assert (sink.error, sink.ids, sink.reason) == (None, [7], "length")


# Strange answers


class Odd:
    """A lane whose reader fails in a way that no lane means to."""

    def __init__(self, *, at_end: BaseException | None = None, at_event: BaseException | None = None) -> None:
        self._lane = lane_of(SCHEMA)
        self.name = self._lane.name
        self.check = self._lane.check
        self.tensors = self._lane.tensors
        self._at_end = at_end
        self._at_event = at_event

    def reader(self, _request: InferenceRequest, _sink: Sink) -> TritonReader:
        return self

    def event(self, _outputs: dict[str, Any]) -> None:
        if self._at_event is not None:
            raise self._at_event

    def finish(self) -> None:
        if self._at_end is not None:
            raise self._at_end


@pytest.mark.parametrize(
    ("lane", "kind"),
    [
        (Odd(at_event=KeyError("x")), ProtocolError),
        (Odd(at_event=RecursionError("x")), ProtocolError),
        (Odd(at_end=TypeError("x")), ProtocolError),
        (Odd(at_end=ProtocolError("x")), ProtocolError),
        (Odd(at_end=StreamBrokenError("x")), StreamBrokenError),
        (Odd(at_event=asyncio.CancelledError()), StreamBrokenError),
    ],
)
async def test_whatever_a_reader_raises_the_request_ends(
    streams: GrpcStreams, lane: Odd, kind: type[InferenceError]
) -> None:
    async with served(Answering([TOKEN, END])) as address:
        sink = RecordingSink()
        ask(streams, address, sink, lane)
        await ended(sink)
    assert type(sink.error) is kind


async def test_a_response_with_more_outputs_than_contents_ends_the_request(streams: GrpcStreams) -> None:
    """Triton may send typed contents instead of raw ones; nothing here reads them."""
    strange = response(b"\x07\x00\x00\x00")
    strange.infer_response.raw_output_contents.pop()
    async with served(Answering([strange, END])) as address:
        sink = RecordingSink()
        ask(streams, address, sink)
        await ended(sink)
    assert isinstance(sink.error, ProtocolError)
    assert isinstance(sink.error.__cause__, ValueError)


# Addresses


async def test_an_address_that_never_answers_fails_after_the_time_to_connect(streams: GrpcStreams) -> None:
    """A listener that says nothing: to gRPC the connection is not made until HTTP/2 has begun."""
    writers = []
    server = await asyncio.start_server(lambda _, writer: writers.append(writer), "127.0.0.1", 0)
    sink = RecordingSink()
    ask(streams, f"127.0.0.1:{server.sockets[0].getsockname()[1]}", sink)
    await ended(sink)
    assert isinstance(sink.error, ServerUnreachableError)
    for writer in writers:
        writer.close()
    server.close()
    await server.wait_closed()


async def test_a_call_may_be_cancelled_while_it_connects(streams: GrpcStreams) -> None:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    sink = RecordingSink()
    call = ask(streams, f"127.0.0.1:{server.sockets[0].getsockname()[1]}", sink)
    await asyncio.sleep(0)
    call.cancel()
    await streams.close()
    assert sink.ends == 0
    server.close()
    await server.wait_closed()


class Relay:
    """Passes bytes on to a server, and so sees when its client closes the connection."""

    def __init__(self, address: str) -> None:
        self._host, _, self._port = address.rpartition(":")
        self.address = ""
        self.closed = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Relay]:
        server = await asyncio.start_server(self._pass, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield self
        server.close()
        await server.wait_closed()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(self._host, self._port)
        back = asyncio.create_task(_copy(far_reader, writer))
        await _copy(reader, far_writer)
        self.closed.set()
        await back


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
    except ConnectionError:
        pass
    writer.close()


async def test_the_channel_of_an_address_that_is_gone_is_closed() -> None:
    """And that of one that stays is kept."""
    async with (
        served(Answering([TOKEN, END])) as address,
        Relay(address).running() as gone,
        Relay(address).running() as kept,
    ):
        clients = ModelClients(Timeouts())
        for relay in (gone, kept):
            sink = RecordingSink()
            request = InferenceRequest(id="r", model="m", stream=False, max_tokens=1, prompt_ids=[1])
            clients.of(endpoint(relay.address)).start(request, sink)
            assert (await ended(sink)).error is None
        assert not gone.closed.is_set()
        clients.retain([endpoint(kept.address)])
        async with asyncio.timeout(5):
            await gone.closed.wait()
        assert not kept.closed.is_set()
        await clients.close()


async def test_a_call_under_way_outlives_its_address(streams: GrpcStreams) -> None:
    """The endpoint leaves the registry while it drains; its channel closes with the last call."""
    servicer = Answering([TOKEN, END])
    servicer.gate.clear()
    async with served(servicer) as address, Relay(address).running() as relay:
        sink = RecordingSink()
        ask(streams, relay.address, sink)
        async with asyncio.timeout(5):
            await sink.begun.wait()
        streams.retain(())
        servicer.gate.set()
        await ended(sink)
        async with asyncio.timeout(5):
            await relay.closed.wait()
    assert (sink.error, sink.ids) == (None, [7])
