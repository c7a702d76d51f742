"""Delayed acknowledgements: half the packets that Linux sends back for a stream of tokens.

The kernel acknowledges each small segment of a one-way stream as soon as it is read; told not to, it does so
for every second one, which halves what a read costs (`docs/decisions/0001`). It goes back
to its way whenever the other side waited for one, so that a server which does not switch Nagle's algorithm
off, as Triton's and uvicorn's do, is held up once per request, by 40 ms at most.
"""

from __future__ import annotations

import ctypes
import socket
from collections.abc import Callable

_OPTION: int | None = getattr(socket, "TCP_QUICKACK", None)  # Linux alone has it
_OFF = ctypes.c_int(0)


def _by_descriptor() -> Callable[[int], object] | None:
    if _OPTION is None:
        return None
    set_option, option, off, size = ctypes.CDLL(None).setsockopt, _OPTION, ctypes.byref(_OFF), 4

    def delay(descriptor: int) -> object:
        return set_option(descriptor, socket.IPPROTO_TCP, option, off, size)

    return delay


delay_acks = _by_descriptor()
"""To be called with a connection's file descriptor as a request goes out; None where there is no such thing.

By descriptor, as the transport owns the socket, and uvloop's stand-in for it makes a new one at each call.
"""
