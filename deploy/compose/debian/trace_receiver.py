"""A receiver of traces where no collector is to be had: OTLP over HTTP in, Jaeger's trace look-up out.

`POST /v1/traces` on port 4318 takes what gateways export; `GET /api/traces/<id>` on port 16686 answers as
Jaeger's query API does, with the fields that the house looks at. Keeps the last thousand traces, in memory.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

KEPT = 1000
OTLP_PORT, QUERY_PORT = 4318, 16686


class Traces:
    """Spans by trace, the oldest trace dropped first."""

    def __init__(self) -> None:
        self._spans: OrderedDict[str, list[dict[str, Any]]] = OrderedDict()

    async def take(self, request: web.Request) -> web.Response:
        """`POST /v1/traces`; aiohttp has undone gzip already."""
        message = ExportTraceServiceRequest.FromString(await request.read())
        for resource in message.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self._spans.setdefault(span.trace_id.hex(), []).append(_shown(span))
        while len(self._spans) > KEPT:
            self._spans.popitem(last=False)
        body = ExportTraceServiceResponse().SerializeToString()
        return web.Response(body=body, content_type="application/x-protobuf")

    async def show(self, request: web.Request) -> web.Response:
        """`GET /api/traces/<id>`."""
        trace = request.match_info["trace"]
        if trace not in self._spans:
            errors = [{"code": 404, "msg": "trace not found"}]
            return web.json_response({"data": None, "errors": errors}, status=404)
        return web.json_response({"data": [{"traceID": trace, "spans": self._spans[trace]}]})

    async def count(self, _request: web.Request) -> web.Response:
        """`GET /`: that it is well."""
        return web.json_response({"traces": len(self._spans)})


def _shown(span: Any) -> dict[str, Any]:
    return {
        "traceID": span.trace_id.hex(),
        "spanID": span.span_id.hex(),
        "operationName": span.name,
        "startTime": span.start_time_unix_nano // 1000,
        "duration": (span.end_time_unix_nano - span.start_time_unix_nano) // 1000,
    }


async def serve() -> None:
    """Serve both ports until the process is ended."""
    traces = Traces()
    otlp, query = web.Application(client_max_size=64 * 1024**2), web.Application()
    otlp.router.add_post("/v1/traces", traces.take)
    query.router.add_get("/api/traces/{trace}", traces.show)
    query.router.add_get("/", traces.count)
    for app, port in ((otlp, OTLP_PORT), (query, QUERY_PORT)):
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "0.0.0.0", port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve())
