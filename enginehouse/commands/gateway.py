"""`enginehouse gateway`."""

from __future__ import annotations

from typing import Annotated

import typer

from enginehouse.commands.options import ConfigFile


def gateway(
    config: ConfigFile = None,
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on.")] = None,
    port: Annotated[
        int | None, typer.Option("--port", min=0, max=65535, help="Port; 0 takes any free one.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Processes that share the port.")
    ] = None,
) -> None:
    """Run one gateway: its workers share a port; the registry says what it serves.

    Examples:

      enginehouse gateway --config enginehouse.toml --workers 4

      ENGINEHOUSE_REGISTRY__REDIS_URL=redis://redis:6379/0 enginehouse gateway --host 0.0.0.0
    """
    from enginehouse.gateway_workers import run_gateway

    run_gateway(config, host, port, workers)
