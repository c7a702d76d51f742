"""HTTP chunk: a piece of a streamed body with its framing, as tokens mostly travel.

Heads are looked up: to write or parse a hexadecimal number costs more than everything else here.
"""

from __future__ import annotations

LONGEST_EVENT_BYTES = 64 << 20
"""Of a server-sent event, which is kept until it is whole; an answer in one piece may be one event."""
LONGEST_REFUSAL_BYTES = 64 * 1024
"""Of an answer that is none: what comes later tells nothing more."""

_LONGEST = 4096
_HEADS = [b"%x\r\n" % size for size in range(_LONGEST)]
"""By the bytes that a chunk holds."""


def _heads_of_wholes() -> list[bytes]:
    heads = [b"-"] * _LONGEST
    for head, size in zip(_HEADS[1:], range(1, _LONGEST), strict=True):
        whole = len(head) + size + 2
        if whole < _LONGEST:
            heads[whole] = head
    return heads


_HEADS_OF_WHOLES = _heads_of_wholes()
"""By the bytes of a whole chunk; "-" where no chunk has so many."""


def framed(data: bytes) -> bytes:
    """`data`, which is not empty, as one chunk."""
    size = len(data)
    head = _HEADS[size] if size < _LONGEST else b"%x\r\n" % size
    return head + data + b"\r\n"


def is_one_chunk(data: bytes) -> bool:
    """Whether `data`, read where a chunk may begin, is exactly one; only of short ones without extensions."""
    return len(data) < _LONGEST and data.startswith(_HEADS_OF_WHOLES[len(data)]) and data.endswith(b"\r\n")


def body_of(chunk: bytes) -> bytes:
    """What one chunk holds."""
    return chunk[chunk.index(b"\n") + 1 : -2]
