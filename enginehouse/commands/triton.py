"""`enginehouse triton`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from enginehouse.commands.options import StateDirectory


def triton(
    stack: Annotated[
        Path | None, typer.Option("--stack", help="YAML with the server's engines. Default: the demo's.")
    ] = None,
    server: Annotated[
        str | None, typer.Option("--server", help="Which server of the stack. Default: the first.")
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    http_port: Annotated[int, typer.Option("--http-port", min=0, max=65535, help="0 takes any.")] = 8000,
    grpc_port: Annotated[int, typer.Option("--grpc-port", min=0, max=65535, help="0 takes any.")] = 8001,
    metrics_port: Annotated[
        int, typer.Option("--metrics-port", min=0, max=65535, help="0 takes any.")
    ] = 8002,
    pacing: Annotated[
        str, typer.Option("--pacing", help="Keep the time of a GPU engine: name of a card, or a file.")
    ] = "none",
    state_dir: StateDirectory = None,
) -> None:
    """Run one Triton Inference Server with CPU engines, as `up` does, for a gateway elsewhere.

    Its log is this command's output. When the server ends, or loses one of its models' processes, so does the
    command, with status 1: whoever started it starts it again.

    Examples:

      enginehouse triton --host 0.0.0.0

      enginehouse triton --stack stack.yaml --server triton-1 --http-port 9000
    """
    from enginehouse.cpu_triton import TritonArguments, run_triton

    ports = (http_port, grpc_port, metrics_port)
    run_triton(TritonArguments(stack, server, host, ports, pacing, state_dir))
