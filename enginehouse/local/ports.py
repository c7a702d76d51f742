"""Ports of this machine: which are free, and keeping one for a process that is yet to start."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from enginehouse.errors import MachineError


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def reserved_port(host: str, port: int) -> Iterator[int]:
    """Keep `port` (0: any free one) for processes of this user that bind it with SO_REUSEPORT.

    The socket is bound and never listens, so the kernel gives it no connection; while a gateway restarts,
    nobody else is given the port as a free one. Raises MachineError when the port is taken.
    """
    port = _claim(host, port)
    with socket.socket(_family(host)) as keeper:
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        keeper.bind((host, port))
        yield port


def _claim(host: str, port: int) -> int:
    """Bind exclusively once: SO_REUSEPORT alone would join another gateway of the same user."""
    with socket.socket(_family(host)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise _explained(error, host, port) from error
        claimed: int = probe.getsockname()[1]
        return claimed


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _explained(error: OSError, host: str, port: int) -> MachineError:
    if error.errno == errno.EADDRINUSE:
        return MachineError(
            f"port {port} on {host} is in use", "choose another: --port N (0 takes any free one)"
        )
    if error.errno == errno.EACCES:
        return MachineError(
            f"port {port} needs more rights than this user has", "choose one above 1023: --port N"
        )
    return MachineError(f"cannot listen on {host}:{port}: {error.strerror}", "choose another --host")
