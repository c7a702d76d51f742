"""The gRPC service that KEDA asks; `docs/kubernetes.md` has the ScaledObject that points to it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from types import MappingProxyType
from typing import Any

import grpc  # type: ignore[import-untyped]  # publishes no types

from controller.keda.answers import (
    METRIC,
    TARGET,
    BadMetadataError,
    NoAnswerError,
    UndecidedError,
    UnknownDeploymentError,
    wanted_of,
)
from controller.keda.messages import (
    METHODS,
    SERVICE,
    GetMetricSpecResponse,
    GetMetricsResponse,
    IsActiveResponse,
)
from model_registry.snapshot import Snapshot

_log = logging.getLogger(__name__)

CODES: Mapping[type[NoAnswerError], grpc.StatusCode] = MappingProxyType(
    {
        BadMetadataError: grpc.StatusCode.INVALID_ARGUMENT,
        UnknownDeploymentError: grpc.StatusCode.NOT_FOUND,
        UndecidedError: grpc.StatusCode.UNAVAILABLE,
    }
)
CLOSE_S = 0.2
"""What calls under way have to end by themselves."""


class KedaScaler:
    """Serves what is wanted from `start` to `close`; `registry_changed` tells it the newest snapshot."""

    def __init__(self) -> None:
        self._snapshot = Snapshot.of(0, (), stale=True)
        self._changed = asyncio.Event()
        self._server: Any = None
        self.port = 0

    def registry_changed(self, snapshot: Snapshot) -> None:
        """For a watcher's `on_change`."""
        self._snapshot = snapshot
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def start(self, host: str, port: int) -> None:
        """Listen; port 0 takes any free one. Raises OSError where that cannot be."""
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, self._handlers()),))
        try:
            self.port = server.add_insecure_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        except RuntimeError as error:
            raise OSError("the address is taken, or is none of this machine's") from error
        await server.start()
        self._server = server
        _log.info("KEDA scaler listens", extra={"host": host, "port": self.port})

    async def close(self) -> None:
        """End open streams, and listen no longer."""
        if self._server is not None:
            await self._server.stop(CLOSE_S)
            self._server = None

    def _handlers(self) -> dict[str, Any]:
        behaviours = {
            "IsActive": self._is_active,
            "StreamIsActive": self._stream_is_active,
            "GetMetricSpec": self._metric_spec,
            "GetMetrics": self._metrics,
        }
        handlers = {}
        for name, method in METHODS.items():
            make = (
                grpc.unary_stream_rpc_method_handler
                if method.streams
                else grpc.unary_unary_rpc_method_handler
            )
            handlers[name] = make(
                behaviours[name], method.request.FromString, method.response.SerializeToString
            )
        return handlers

    async def _is_active(self, reference: Any, context: Any) -> Any:
        return IsActiveResponse(result=await self._wanted(reference, context) > 0)

    async def _stream_is_active(self, reference: Any, context: Any) -> AsyncIterator[Any]:
        """Now, and whenever that changes: KEDA starts the first replica at once, not when it next polls."""
        told = None
        while True:
            changed = self._changed
            active = await self._wanted(reference, context) > 0
            if active != told:
                yield IsActiveResponse(result=active)
                told = active
            await changed.wait()

    async def _metric_spec(self, reference: Any, context: Any) -> Any:
        await self._wanted(reference, context)
        spec = {"metricName": METRIC, "targetSize": TARGET, "targetSizeFloat": float(TARGET)}
        return GetMetricSpecResponse(metricSpecs=[spec])

    async def _metrics(self, request: Any, context: Any) -> Any:
        wanted = await self._wanted(request.scaledObjectRef, context)
        value = {"metricName": METRIC, "metricValue": wanted, "metricValueFloat": float(wanted)}
        return GetMetricsResponse(metricValues=[value])

    async def _wanted(self, reference: Any, context: Any) -> int:
        try:
            return wanted_of(self._snapshot, reference.scalerMetadata).wanted
        except NoAnswerError as error:
            _log.info("KEDA not answered", extra={"scaled_object": reference.name, "reason": str(error)})
            await context.abort(CODES[type(error)], str(error))
            raise
