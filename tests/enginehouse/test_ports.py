"""A port is claimed before anything starts on it, and kept while a gateway restarts."""

from __future__ import annotations

import socket

import pytest

from enginehouse.errors import MachineError
from enginehouse.local.ports import reserved_port
from gateway.workers import WorkersError, reserve_port


def test_a_port_in_use_is_refused_with_the_way_out() -> None:
    """One sentence and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(MachineError) as refused, reserved_port("127.0.0.1", port):
            pass
    assert refused.value.message == f"port {port} on 127.0.0.1 is in use"
    assert "--port" in (refused.value.remedy or "")


def test_a_port_shared_by_reuseport_is_in_use_too() -> None:
    """Two gateways of one user would otherwise share their requests unnoticed."""
    with (
        socket.create_server(("127.0.0.1", 0), reuse_port=True) as listener,
        pytest.raises(MachineError),
        reserved_port("127.0.0.1", listener.getsockname()[1]),
    ):
        pass


def test_workers_bind_a_reserved_port_and_get_every_connection() -> None:
    """The keeper never listens, so no connection is lost to it."""
    with (
        reserved_port("127.0.0.1", 0) as port,
        socket.create_server(("127.0.0.1", port), reuse_port=True) as worker,
    ):
        worker.settimeout(5)
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", port), timeout=5):
                worker.accept()[0].close()


def test_a_gateway_starts_on_a_reserved_port() -> None:
    """Its own check for another listener passes, and fails once somebody listens."""
    with reserved_port("127.0.0.1", 0) as port:
        with reserve_port("127.0.0.1", port):
            pass
        with (
            socket.create_server(("127.0.0.1", port), reuse_port=True),
            pytest.raises(WorkersError),
        ):
            reserve_port("127.0.0.1", port)
