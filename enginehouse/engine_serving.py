"""A fetched emulated engine on this machine's own Triton, until it is stopped."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from engine_builder.package import read_manifest
from enginehouse.errors import CommandError
from enginehouse.local.triton import Progress, TritonPorts, TritonProcess
from enginehouse.local.triton_environment import ensure_environment


async def serve(folder: Path, ports: TritonPorts, log: Path, progress: Progress) -> None:
    """Serves until SIGINT or SIGTERM; `progress` is told when models are ready and where they answer.

    Raises BuilderError where `folder` holds no engine, CommandError for an engine that is not emulated or was
    not fetched, and ProcessError when the server does not start or ends by itself.
    """
    manifest = read_manifest(folder)
    if manifest.runtime != "emulated":
        raise CommandError(
            f"{manifest.name} is for runtime {manifest.runtime}, and this Triton has CPU engines only",
            f"start {folder / 'serve' / 'launch' / 'triton.sh'} in {manifest.image or 'its image'}",
        )
    repository = folder / "serve" / "repository"
    if not repository.is_dir():
        raise CommandError(
            f"{repository} is not there",
            f"serve a fetched folder: enginehouse engines fetch {manifest.name} DEST",
        )
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    models = sorted(path.name for path in repository.iterdir() if path.is_dir())
    server = TritonProcess(
        manifest.name,
        await ensure_environment(),
        repository,
        log,
        load=models,
        ports=ports,
        progress=progress,
    )
    try:
        await server.start()
        asked_to_stop = asyncio.create_task(stopped.wait())
        up = asyncio.create_task(_up(server, progress, manifest.name))
        await asyncio.wait({asked_to_stop, up}, return_when=asyncio.FIRST_COMPLETED)
        if up.done():
            up.result()
        for task in (asked_to_stop, up):
            task.cancel()
        await asyncio.gather(asked_to_stop, up, return_exceptions=True)
    finally:
        await server.stop()


async def _up(server: TritonProcess, progress: Progress, name: str) -> None:
    """Returns never: raises when the server ends."""
    await server.ready()
    progress(f"http: {server.http_url}  grpc: {server.grpc_url}  metrics: {server.metrics_url}")
    progress(f"next: enginehouse preflight {name} --server {server.http_url}; Ctrl-C stops the server")
    status = await server.wait()
    raise CommandError(f"{name}: the server ended with status {status}", "its log says why")
