"""What a controller listens on: the page of its metrics, and KEDA's scaler. Both are off unless set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from controller.config import ControllerConfig
from controller.metrics.collector import FleetCollector, Sources
from controller.metrics.page import MetricsPage
from enginehouse.errors import SettingsError
from model_registry.snapshot import Snapshot

if TYPE_CHECKING:
    from controller.keda.server import KedaScaler


class ControllerPorts:
    """Of one process."""

    def __init__(self, config: ControllerConfig) -> None:
        self._config = config
        self._page: MetricsPage | None = None
        self._scaler: KedaScaler | None = None

    async def open(self, sources: Sources) -> None:
        """Listen from now on. Raises SettingsError naming a port that cannot be had."""
        host, metrics_port, keda_port = self._config.host, self._config.metrics_port, self._config.keda_port
        try:
            if metrics_port is not None:
                self._page = MetricsPage(FleetCollector(sources), host, metrics_port)
        except OSError as error:
            raise _taken("metrics_port", host, metrics_port, error) from error
        try:
            if keda_port is not None:
                from controller.keda.server import KedaScaler  # gRPC takes its time, and most have no KEDA

                self._scaler = KedaScaler()
                self._scaler.registry_changed(sources.snapshot())
                await self._scaler.start(host, keda_port)
        except OSError as error:
            raise _taken("keda_port", host, keda_port, error) from error

    def registry_changed(self, snapshot: Snapshot) -> None:
        """For a watcher's `on_change`."""
        if self._scaler is not None:
            self._scaler.registry_changed(snapshot)

    async def close(self) -> None:
        """Listen no longer."""
        if self._scaler is not None:
            await self._scaler.close()
        if self._page is not None:
            self._page.close()


def _taken(field: str, host: str, port: int | None, error: OSError) -> SettingsError:
    return SettingsError(
        f"controller.{field}: cannot listen on {host}:{port} ({error.strerror or error})",
        f"set another controller.{field}, or leave it out",
    )
