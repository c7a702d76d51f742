"""GrpcStreams: Triton's gRPC `ModelStreamInfer`, one stream per request, pushed to a sink.

Selectable per deployment. HTTP is the default because it costs the gateway about a third per token
(`docs/decisions`). One stream per request, because Triton cancels every request of a stream together.
Channels are shared by address and owned by one event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

import grpc  # type: ignore[import-untyped]  # publishes no types
from tritonclient.grpc import service_pb2, service_pb2_grpc

from inference.classify import classify_error
from inference.errors import (
    InferenceError,
    ProtocolError,
    ServerBusyError,
    ServerTimeoutError,
    ServerUnreachableError,
    StreamBrokenError,
)
from inference.grpc_tensors import infer_bytes, infer_request, is_final, outputs_of
from inference.lane import TritonLane
from inference.push_http import Timeouts
from inference.request import InferenceRequest
from inference.schema import Schema
from inference.sink import Sink
from model_registry.entities import Endpoint

_CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # A server that comes back must be found again within a breaker's probe, not after two minutes.
    ("grpc.max_reconnect_backoff_ms", 1_000),
]
_ERRORS = {
    grpc.StatusCode.UNAVAILABLE: ServerUnreachableError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ServerBusyError,
    grpc.StatusCode.DEADLINE_EXCEEDED: ServerTimeoutError,
}
_CONNECTING = (grpc.ChannelConnectivity.IDLE, grpc.ChannelConnectivity.CONNECTING)
_HTTP_STATUS = {grpc.StatusCode.INVALID_ARGUMENT: 400, grpc.StatusCode.NOT_FOUND: 404}


class GrpcStreams:
    """Starts calls; keeps one channel per address."""

    def __init__(self, timeouts: Timeouts = Timeouts()) -> None:  # noqa: B008  # frozen
        self._timeouts = timeouts
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._retired: set[grpc.aio.Channel] = set()
        self._calls: set[GrpcCall] = set()
        self._closing: set[asyncio.Task[None]] = set()

    def start(
        self, endpoint: Endpoint, lane: TritonLane, schema: Schema, request: InferenceRequest, sink: Sink
    ) -> GrpcCall:
        """Send `request`; what the server does goes to `sink`.

        Raises UnsupportedFeatureError before anything is sent.
        """
        if endpoint.grpc is None:
            raise ValueError(f"endpoint {endpoint.name} has no gRPC address")
        lane.check(request)
        tensors = lane.tensors(request)
        metadata = (("traceparent", request.traceparent),) if request.traceparent else None
        channel = self._channel(endpoint.grpc)
        answer = _Answer(lane, request, sink)
        if request.lora is not None and request.lora.weights is not None:
            stream = _of_bytes(channel)(metadata=metadata)
            message = infer_bytes(schema.target, request.id, tensors, schema.inputs)
        else:
            stream = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelStreamInfer(metadata=metadata)
            message = infer_request(schema.target, request.id, tensors, schema.inputs)
        first_s = self._timeouts.first_byte_s if request.stream else self._timeouts.whole_s
        call = GrpcCall(channel, stream, message, answer, self._timeouts, first_s)
        self._calls.add(call)
        call.task.add_done_callback(lambda _: self._ended(call))
        return call

    def retain(self, addresses: Collection[str]) -> None:
        """Close the channels of other addresses: idle ones now, busy ones when their last call ends."""
        for address in self._channels.keys() - set(addresses):
            channel = self._channels.pop(address)
            self._retired.add(channel)
            self._close_if_idle(channel)

    async def close(self) -> None:
        """End every call and channel."""
        for call in list(self._calls):
            call.cancel()
        for channel in (*self._channels.values(), *self._retired):
            await channel.close()
        self._channels.clear()
        self._retired.clear()
        await asyncio.gather(*self._closing)

    def _ended(self, call: GrpcCall) -> None:
        self._calls.discard(call)
        self._close_if_idle(call.channel)

    def _close_if_idle(self, channel: grpc.aio.Channel) -> None:
        """Closing a channel would cancel the calls on it."""
        if channel in self._retired and not any(call.channel is channel for call in self._calls):
            self._retired.discard(channel)
            closing = asyncio.get_running_loop().create_task(channel.close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    def _channel(self, address: str) -> grpc.aio.Channel:
        if address not in self._channels:
            self._channels[address] = grpc.aio.insecure_channel(address, options=_CHANNEL_OPTIONS)
        return self._channels[address]


def _of_bytes(channel: grpc.aio.Channel) -> Any:
    """`ModelStreamInfer` for messages that are bytes already."""
    return channel.stream_stream(
        "/inference.GRPCInferenceService/ModelStreamInfer",
        response_deserializer=service_pb2.ModelStreamInferResponse.FromString,
    )


class GrpcCall:
    """One request on its own stream."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        stream: Any,
        message: Any,
        answer: _Answer,
        timeouts: Timeouts,
        first_s: float,
    ) -> None:
        """`first_s`: how long the first response is waited for, which may be the whole answer."""
        self.channel = channel
        self._stream = stream
        self._message = message
        self._answer = answer
        self._timeouts = timeouts
        self._first_s = first_s
        self._reading = asyncio.Event()
        self._reading.set()
        self.task = asyncio.get_running_loop().create_task(self._run())

    def cancel(self) -> None:
        """Free the engine's slot and call the sink no more."""
        if not self._answer.over:
            self._answer.over = True
            self._stream.cancel()
            self.task.cancel()

    def pause(self) -> None:
        """Read no more; HTTP/2's window then stops the server."""
        self._reading.clear()

    def resume(self) -> None:
        self._reading.set()

    async def _run(self) -> None:
        try:
            await self._connect()
            await self._read_all()
        except InferenceError as error:
            self._answer.lost(error)
        except TimeoutError:
            self._answer.lost(ServerTimeoutError("the server sent nothing within the time allowed"))
        except grpc.aio.AioRpcError as error:
            self._answer.lost(_error_of(error, self._answer.begun))
        except asyncio.CancelledError:
            self._answer.lost(StreamBrokenError("the stream was cancelled"))  # by `cancel`: tells nobody
            raise
        except Exception as error:  # whatever a strange answer does to its reader, the request must end
            failure = ProtocolError(f"the answer cannot be read: {type(error).__name__}: {error}")
            failure.__cause__ = error
            self._answer.lost(failure)
        finally:
            self._stream.cancel()  # harmless after its end; otherwise the engine must not go on

    async def _connect(self) -> None:
        """Wait while the channel connects; when that fails, the stream itself says why."""
        try:
            async with asyncio.timeout(self._timeouts.connect_s):
                while (state := self.channel.get_state(try_to_connect=True)) in _CONNECTING:
                    await self.channel.wait_for_state_change(state)
        except TimeoutError as error:
            raise ServerUnreachableError("no gRPC connection within the time allowed") from error

    async def _read_all(self) -> None:
        async with asyncio.timeout(self._first_s):
            await self._write()
            response = await self._stream.read()
        while response is not grpc.aio.EOF:
            self._answer.take(response)
            await self._reading.wait()
            async with asyncio.timeout(self._timeouts.idle_s):
                response = await self._stream.read()
        if await self._stream.code() is not grpc.StatusCode.OK:
            raise StreamBrokenError(f"the stream ended with {await self._stream.details()}")
        self._answer.complete()

    async def _write(self) -> None:
        try:
            await self._stream.write(self._message)
            await self._stream.done_writing()
        except asyncio.InvalidStateError:  # the call is over already, as where a connection is refused
            none = grpc.aio.Metadata()
            code, details = await self._stream.code(), await self._stream.details()
            raise grpc.aio.AioRpcError(code, none, none, details) from None
        finally:
            self._message = None  # the weights of an adapter must not live as long as the answer


class _Answer:
    """Feeds the responses of one stream to a lane's reader."""

    __slots__ = ("_final", "_reader", "_sink", "begun", "over")

    def __init__(self, lane: TritonLane, request: InferenceRequest, sink: Sink) -> None:
        self._reader = lane.reader(request, sink)
        self._sink = sink
        self._final = False
        self.begun = False
        self.over = False

    def take(self, response: Any) -> None:
        """One `ModelStreamInferResponse`."""
        if self.over:
            return
        if response.error_message:
            raise classify_error(200, response.error_message)
        if not self.begun:
            self.begun = True
            self._sink.head()
        inner = response.infer_response
        self._final = is_final(inner)
        if inner.outputs:
            self._reader.event(outputs_of(inner))
            self._sink.flush()

    def complete(self) -> None:
        """The stream ended: cleanly only after a final response."""
        if self.over:
            return
        if not self._final:
            raise StreamBrokenError("the stream ended without its final response")
        self._reader.finish()
        self.over = True

    def lost(self, error: InferenceError) -> None:
        if not self.over:
            self.over = True
            self._sink.lost(error)


def _error_of(error: grpc.aio.AioRpcError, begun: bool) -> InferenceError:
    text = error.details() or error.code().name
    if begun:
        return StreamBrokenError(text)
    kind = _ERRORS.get(error.code())
    if kind is not None:
        return kind(text)
    if error.code() is grpc.StatusCode.UNIMPLEMENTED:
        return ProtocolError(text)
    return classify_error(_HTTP_STATUS.get(error.code(), 500), text)
