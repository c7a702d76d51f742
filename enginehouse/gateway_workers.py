"""`enginehouse gateway`: the supervisor of the worker processes that share one port."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from enginehouse.errors import ProcessError
from enginehouse.local.state_dir import STATE_DIR_ENV
from enginehouse.settings import CONFIG_ENV, Settings, load
from gateway.workers import METRICS_VARIABLE, WorkersError, WorkersPlan, run_workers
from telemetry.logs import logs_at_once


def run_gateway(config: Path | None, host: str | None, port: int | None, workers: int | None) -> None:
    """Run until SIGTERM or SIGINT, then let the workers drain. Options win over environment and file."""
    environment = {**os.environ, **_overrides(config, host, port, workers)}
    settings = load(environment=environment).settings
    try:
        with (
            logs_at_once(settings.telemetry),
            _metrics_folder(settings.gateway.workers, environment) as folder,
        ):
            run_workers(_plan(settings, folder))
    except WorkersError as error:
        raise ProcessError(str(error)) from error


def _plan(settings: Settings, metrics_dir: Path | None) -> WorkersPlan:
    """Also sets what libraries of the workers read from the environment, then imports all that they need."""
    # Texts are encoded and arrays added up one by one; threads for that would only hand them around.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if metrics_dir is not None:
        os.environ[METRICS_VARIABLE] = str(metrics_dir)
    from enginehouse.gateway_process import run_worker

    config = settings.gateway
    return WorkersPlan(
        serve=partial(run_worker, settings),
        count=config.workers,
        host=config.host,
        port=config.port,
        drain_deadline_s=config.drain_timeout_s + (config.drain_notice_s or 0),
        metrics_dir=metrics_dir,
    )


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
