"""WorkerSeat: what a worker process is told by its supervisor, and how it answers.

`gateway.workers` is the other side.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
from typing import Final

import msgspec

_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
BACKLOG: Final = 4096


class WorkerSeat(msgspec.Struct, frozen=True):
    """One worker's place."""

    index: int
    """0-based; a restarted worker keeps it."""
    host: str
    port: int
    supervisor_pid: int
    ready_fd: int
    life: str = ""
    """Unlike that of every other worker process that ever was."""
    ended: tuple[str, ...] = ()
    """Lives of earlier workers that their supervisor has seen end, however they did; the latest ones."""

    def take(self) -> None:
        """Tie this process to its supervisor; the first thing that a worker does.

        It gets SIGTERM, and so drains, when the supervisor is gone, however that died.
        """
        if sys.platform == "linux":
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
                raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
        if os.getppid() != self.supervisor_pid:
            raise SystemExit("the supervisor of this worker is gone")

    def listen(self) -> socket.socket:
        """A socket that listens on the shared port beside those of the other workers."""
        return listening_socket(self.host, self.port)

    def report_ready(self) -> None:
        """Tell the supervisor that this worker accepts connections; once."""
        os.write(self.ready_fd, b"1")
        os.close(self.ready_fd)


def listening_socket(host: str, port: int) -> socket.socket:
    """A socket that takes connections for asyncio, beside others on the same port."""
    listening = reusable_socket(host, port)
    listening.listen(BACKLOG)
    listening.setblocking(False)
    return listening


def reusable_socket(host: str, port: int) -> socket.socket:
    """A TCP socket bound with SO_REUSEPORT; it takes no connection before `listen`."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound
