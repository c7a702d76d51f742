"""A builder process of a campaign: `python -m bench.killed_builder FOLDER REDIS_URL ENGINES_MODULE`."""

from __future__ import annotations

import asyncio
import importlib
import logging
import signal
import sys
from pathlib import Path

from engine_builder.build.builder import Builder
from engine_builder.config import BuilderConfig
from enginehouse.building import Parts, maker
from model_registry.build_jobs.entities import Able
from model_registry.build_jobs.store import BuildStore, Terms
from model_registry.config import RegistryConfig
from model_registry.connection import connect
from model_registry.store import RegistryStore

CONFIG = BuilderConfig(
    lease_s=0.8, heartbeat_s=0.1, poll_s=0.05, grace_s=0.5, min_free_disk_gib=0.0, min_free_memory_gib=0.0
)
TERMS = Terms(attempts=1000)


def main(folder: Path, redis_url: str, engines: str) -> None:
    """Work until ended; says `ready` once it looks for work."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(process)d %(message)s")
    parts = importlib.import_module(engines).parts(folder)
    asyncio.run(_run(folder, redis_url, parts))


async def _run(folder: Path, redis_url: str, parts: Parts) -> None:
    registry = RegistryConfig(redis_url=redis_url)
    client = connect(registry)
    build = maker(parts, CONFIG, folder / "cache", "")
    builds, store = BuildStore.of(client, registry, TERMS), RegistryStore.of(client, registry)
    builder = Builder(builds, store, build, Able(("emulated",)), CONFIG)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, builder.end)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await builder.run()
    await client.aclose()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
