"""What gateway processes tell each other beside slots: endpoints that are late, loads, and prefixes. Pure.

A message is a few hundred bytes whatever there is to say: the most important comes first, the rest with the
next one. Endpoints and blocks go by four bytes of a hash; two that collide cost a worse choice, no error.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

_VERSION = 1
_HINTS_SHARE = 1 / 2
"""Of the budget, what loads leave to prefixes where there are any."""
_KEY_BYTES = 4
_MOST = 255


class Load(NamedTuple):
    """What one process has in flight at an endpoint."""

    endpoint: int
    """`endpoint_key` of its name."""
    requests: int
    prefill_tokens: int
    decode_tokens: int


class Hint(NamedTuple):
    """Blocks of a prompt that was sent to an endpoint."""

    endpoint: int
    blocks: tuple[int, ...]
    """`block_key`s."""


class Lateness(NamedTuple):
    """First tokens in a row of an endpoint that came far too late for one process."""

    endpoint: int
    in_a_row: int
    age_ms: int
    """Since the first of those attempts began."""


class Message(NamedTuple):
    """What was understood of a message, or went into one."""

    loads: Sequence[Load] = ()
    hints: Sequence[Hint] = ()
    late: Sequence[Lateness] = ()


def endpoint_key(name: str) -> int:
    """How messages call an endpoint."""
    return zlib.crc32(name.encode())


def block_key(block: int) -> int:
    """How messages call a block by its hash."""
    return (block ^ (block >> 32)) & 0xFFFFFFFF


def sampled(blocks: Sequence[int]) -> tuple[int, ...]:
    """Keys of a few blocks that tell how far a prompt goes: the first, second, fourth … and the last."""
    depths = [1 << power for power in range(len(blocks).bit_length()) if 1 << power <= len(blocks)]
    if blocks and depths[-1] != len(blocks):
        depths.append(len(blocks))
    return tuple(block_key(blocks[depth - 1]) for depth in depths)


def encode(
    loads: Sequence[Load], hints: Sequence[Hint], budget: int, late: Sequence[Lateness] = ()
) -> tuple[str, Message]:
    """A message of at most `budget` characters, and what of the given went into it, from their beginnings.

    What is `late` goes first and stands last, where a reader that does not know of it stops reading.
    """
    room = budget // 4 * 3 - 3  # base64 makes four characters of three bytes
    written_late = list(_fitting([_late_bytes(one) for one in late], room - 1)) if late else []
    room -= sum(map(len, written_late)) + bool(written_late)
    written_loads = list(_fitting([_load_bytes(one) for one in loads], room - _hints_room(room, hints)))
    room -= sum(map(len, written_loads))
    written_hints = list(_fitting([_hint_bytes(one) for one in hints], room))
    if not written_loads and not written_hints and not written_late:
        return "", Message()
    head = bytes((_VERSION, len(written_loads), len(written_hints)))
    tail = (bytes((len(written_late),)), *written_late) if written_late else ()
    text = base64.b64encode(b"".join((head, *written_loads, *written_hints, *tail))).decode()
    return text, Message(loads[: len(written_loads)], hints[: len(written_hints)], late[: len(written_late)])


def decode(text: str) -> Message:
    """Raises ValueError for what is no message, or one of another version."""
    data = base64.b64decode(text, validate=True)
    if len(data) < 3 or data[0] != _VERSION:
        raise ValueError("not a message of this version")
    reader = _Reader(data, 3)
    loads = [Load(reader.key(), reader.number(), reader.number(), reader.number()) for _ in range(data[1])]
    hints = [Hint(reader.key(), tuple(reader.key() for _ in range(reader.number()))) for _ in range(data[2])]
    late = [Lateness(reader.key(), reader.number(), reader.number()) for _ in range(reader.rest())]
    return Message(loads, hints, late)


def _hints_room(room: int, hints: Sequence[Hint]) -> int:
    return min(int(room * _HINTS_SHARE), sum(len(_hint_bytes(one)) for one in hints[:_MOST]))


def _fitting(parts: Sequence[bytes], room: int) -> Iterator[bytes]:
    for part in parts[:_MOST]:
        room -= len(part)
        if room < 0:
            return
        yield part


def _load_bytes(load: Load) -> bytes:
    numbers = (_varint(number) for number in load[1:])
    return load.endpoint.to_bytes(_KEY_BYTES) + b"".join(numbers)


def _hint_bytes(hint: Hint) -> bytes:
    keys = b"".join(key.to_bytes(_KEY_BYTES) for key in hint.blocks)
    return hint.endpoint.to_bytes(_KEY_BYTES) + _varint(len(hint.blocks)) + keys


def _late_bytes(late: Lateness) -> bytes:
    return late.endpoint.to_bytes(_KEY_BYTES) + _varint(late.in_a_row) + _varint(late.age_ms)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


class _Reader:
    def __init__(self, data: bytes, at: int) -> None:
        self._data = data
        self._at = at

    def rest(self) -> int:
        """How many of the last kind follow; 0 at the end of the message."""
        if self._at >= len(self._data):
            return 0
        self._at += 1
        return self._data[self._at - 1]

    def key(self) -> int:
        end = self._at + _KEY_BYTES
        if end > len(self._data):
            raise ValueError("the message ends too early")
        found = int.from_bytes(self._data[self._at : end])
        self._at = end
        return found

    def number(self) -> int:
        found = shift = 0
        while True:
            if self._at >= len(self._data) or shift > 63:
                raise ValueError("the message ends too early")
            byte = self._data[self._at]
            self._at += 1
            found |= (byte & 0x7F) << shift
            if byte < 0x80:
                return found
            shift += 7
