"""The page: `GET /metrics` of one controller."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.registry import Collector


class MetricsPage:
    """Listens in threads of its own."""

    def __init__(self, collector: Collector, host: str, port: int) -> None:
        """Listens at once; port 0 takes any free one. Raises OSError where that cannot be."""
        registry = CollectorRegistry()
        registry.register(collector)
        self._server, self._thread = start_http_server(port, addr=host, registry=registry)
        self.port = int(self._server.server_port)

    def close(self) -> None:
        """Listen no longer."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
