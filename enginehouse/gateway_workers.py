"""`enginehouse gateway`: the supervisor of the worker processes that share one port."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from enginehouse.errors import ProcessError
from enginehouse.local.state_dir import STATE_DIR_ENV
from enginehouse.settings import CONFIG_ENV, load
from gateway.workers import WorkersError, WorkersPlan, run_workers
from telemetry.logs import Logs

WORKER_COMMAND = (sys.executable, "-m", "enginehouse.gateway_process")


def run_gateway(config: Path | None, host: str | None, port: int | None, workers: int | None) -> None:
    """Run until SIGTERM or SIGINT, then let the workers drain. Options win over environment and file."""
    environment = {**os.environ, **_overrides(config, host, port, workers)}
    settings = load(environment=environment).settings
    gateway = settings.gateway
    logs = Logs(settings.telemetry)
    try:
        with _metrics_folder(gateway.workers, environment) as folder:
            run_workers(
                WorkersPlan(
                    command=WORKER_COMMAND,
                    count=gateway.workers,
                    host=gateway.host,
                    port=gateway.port,
                    environment=environment,
                    drain_deadline_s=gateway.drain_timeout_s + (gateway.drain_notice_s or 0),
                    metrics_dir=folder,
                )
            )
    except WorkersError as error:
        raise ProcessError(str(error)) from error
    finally:
        logs.close()


def _overrides(
    config: Path | None, host: str | None, port: int | None, workers: int | None
) -> dict[str, str]:
    given = {
        CONFIG_ENV: config,
        "ENGINEHOUSE_GATEWAY__HOST": host,
        "ENGINEHOUSE_GATEWAY__PORT": port,
        "ENGINEHOUSE_GATEWAY__WORKERS": workers,
    }
    return {name: str(value) for name, value in given.items() if value is not None}


@contextmanager
def _metrics_folder(workers: int, environment: Mapping[str, str]) -> Iterator[Path | None]:
    """Where several workers put their counts together; a local stack keeps it in its own folder."""
    if workers == 1:
        yield None
    elif STATE_DIR_ENV in environment:
        yield Path(environment[STATE_DIR_ENV]) / "metrics"
    else:
        with tempfile.TemporaryDirectory(prefix="enginehouse-metrics-") as folder:
            yield Path(folder)
