"""ModelClients: one client per endpoint, chosen by the lane that introspection recognised.

Owned by one event loop; connections outlive registry changes as long as an endpoint keeps its address.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol
from urllib.parse import urlsplit

from inference.encoder_http import EncoderHttp
from inference.errors import AdapterUnsendableError
from inference.grpc_stream import GrpcStreams
from inference.lane import TritonLane
from inference.lanes import lane_of
from inference.openai_http import OpenAiHttp
from inference.push_http import HttpPool, Patience, Timeouts
from inference.request import InferenceRequest
from inference.schema import Schema
from inference.sink import Call, Sink
from inference.triton_http import TritonHttp
from inference.vllm_embeddings import VllmEmbeddings
from model_registry.entities import Endpoint


class ModelClient(Protocol):
    """Starts calls to one endpoint; their answers are pushed to sinks."""

    def start(self, request: InferenceRequest, sink: Sink) -> Call: ...


class _TritonGrpc:
    """Presents the shared gRPC channels as the client of one endpoint."""

    def __init__(self, streams: GrpcStreams, endpoint: Endpoint, lane: TritonLane, schema: Schema) -> None:
        self._streams = streams
        self._endpoint = endpoint
        self._lane = lane
        self._schema = schema

    def start(self, request: InferenceRequest, sink: Sink) -> Call:
        return self._streams.start(self._endpoint, self._lane, self._schema, request, sink)


class _Vllm:
    """Generates and embeds, as its model can: one call embeds where it has inputs."""

    def __init__(self, generates: ModelClient, embeds: VllmEmbeddings) -> None:
        self._generates = generates
        self._embeds = embeds

    def start(self, request: InferenceRequest, sink: Sink) -> Call:
        client = self._generates if request.inputs is None else self._embeds
        return client.start(request, sink)


class ModelClients:
    """Clients by endpoint. A changed endpoint gets a new client; connections are shared by origin."""

    def __init__(self, timeouts: Timeouts) -> None:
        self._timeouts = timeouts
        self._pools: dict[str, HttpPool] = {}
        self._grpc = GrpcStreams(timeouts)
        self._clients: dict[str, tuple[Endpoint, ModelClient]] = {}
        self._patience: dict[str, Patience] = {}

    def of(self, endpoint: Endpoint) -> ModelClient:
        """The client of `endpoint`; built at its first use."""
        known = self._clients.get(endpoint.name)
        if known is not None and (known[0] is endpoint or _same_address(known[0], endpoint)):
            return known[1]
        client = self._build(endpoint)
        self._clients[endpoint.name] = (endpoint, client)
        return client

    def sending_weights(self, endpoint: Endpoint) -> ModelClient:
        """A client for a request that carries an adapter's weights: JSON cannot carry FP16, gRPC can.

        Raises AdapterUnsendableError, naming the remedy, for an endpoint without gRPC address.
        """
        if endpoint.grpc is None:
            raise AdapterUnsendableError(
                "The LoRA adapter's weights can be sent to the model's server by gRPC only: its operator "
                f"must add `grpc: host:port` to the servers of deployment {endpoint.deployment!r}."
            )
        schema = Schema.from_dict(dict(endpoint.server_schema))
        return _TritonGrpc(self._grpc, endpoint, lane_of(schema), schema)

    def flows(self, endpoint: Endpoint) -> bool:
        """Whether the endpoint's server has sent something of an answer within the last moment.

        Seen on HTTP connections only; over gRPC it is False.
        """
        patience, pool = self._patience.get(endpoint.name), self._pools.get(_origin(endpoint.http))
        return patience is not None and pool is not None and pool.flows(patience)

    def retain(self, endpoints: Iterable[Endpoint]) -> None:
        """Forget clients and idle connections of endpoints that are no more; lose patience with sick ones."""
        names, origins, addresses = set(), set(), set()
        for endpoint in endpoints:
            names.add(endpoint.name)
            if (patience := self._patience.get(endpoint.name)) is not None:
                patience.is_short = endpoint.state == "unhealthy"
            origins.add(_origin(endpoint.http))
            if endpoint.grpc is not None:
                addresses.add(endpoint.grpc)
        for name, (known, _) in list(self._clients.items()):
            if name not in names or _origin(known.http) not in origins:
                del self._clients[name]
        for name in self._patience.keys() - names:
            del self._patience[name]
        for origin in self._pools.keys() - origins:
            self._pools.pop(origin).retire()
        self._grpc.retain(addresses)

    async def close(self) -> None:
        """Close every connection."""
        for pool in self._pools.values():
            pool.close()
        await self._grpc.close()

    def _build(self, endpoint: Endpoint) -> ModelClient:
        patience = self._patience.setdefault(endpoint.name, Patience())
        if endpoint.lane == "openai-http":
            path = urlsplit(endpoint.http).path
            return OpenAiHttp(self._pool(endpoint), path, endpoint.target, endpoint.api_key_env, patience)
        schema = Schema.from_dict(dict(endpoint.server_schema))
        if schema.lane in ("encoder", "text_encoder"):
            return EncoderHttp(self._pool(endpoint), schema, patience)
        client = self._generating(endpoint, schema, patience)
        if schema.lane == "vllm":
            return _Vllm(client, VllmEmbeddings(self._pool(endpoint), schema, patience))
        return client

    def _generating(self, endpoint: Endpoint, schema: Schema, patience: Patience) -> ModelClient:
        lane = lane_of(schema)
        if endpoint.transport == "grpc" and endpoint.grpc is not None:
            return _TritonGrpc(self._grpc, endpoint, lane, schema)
        return TritonHttp(self._pool(endpoint), endpoint.target, lane, patience)

    def _pool(self, endpoint: Endpoint) -> HttpPool:
        origin = _origin(endpoint.http)
        if origin not in self._pools:
            self._pools[origin] = HttpPool(origin, self._timeouts)
        return self._pools[origin]


def takes_weights(endpoint: Endpoint) -> bool:
    """Whether a LoRA adapter's weights must come with a request; else its server has them, or takes none."""
    return "lora_weights" in endpoint.server_schema.get("inputs", ())


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _same_address(one: Endpoint, other: Endpoint) -> bool:
    """Whether only what the client does not read has changed (state, reason)."""
    changed = {"state": other.state, "reason": other.reason}
    return one.model_copy(update=changed) == other
