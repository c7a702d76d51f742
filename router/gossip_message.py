"""What gateway processes tell each other beside slots: loads of endpoints and prefixes sent there. Pure.

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


class Message(NamedTuple):
    """What was understood of a message, or went into one."""

    loads: Sequence[Load] = ()
    hints: Sequence[Hint] = ()


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


def encode(loads: Sequence[Load], hints: Sequence[Hint], budget: int) -> tuple[str, Message]:
    """A message of at most `budget` characters, and what of the given went into it, from their beginnings."""
    room = budget // 4 * 3 - 3  # base64 makes four characters of three bytes
    written_loads = list(_fitting([_load_bytes(one) for one in loads], room - _hints_room(room, hints)))
    room -= sum(map(len, written_loads))
    written_hints = list(_fitting([_hint_bytes(one) for one in hints], room))
    if not written_loads and not written_hints:
        return "", Message()
    head = bytes((_VERSION, len(written_loads), len(written_hints)))
    text = base64.b64encode(b"".join((head, *written_loads, *written_hints))).decode()
    return text, Message(loads[: len(written_loads)], hints[: len(written_hints)])


def decode(text: str) -> Message:
    """Raises ValueError for what is no message, or one of another version."""
    data = base64.b64decode(text, validate=True)
    if len(data) < 3 or data[0] != _VERSION:
        raise ValueError("not a message of this version")
    reader = _Reader(data, 3)
    loads = [Load(reader.key(), reader.number(), reader.number(), reader.number()) for _ in range(data[1])]
    hints = [Hint(reader.key(), tuple(reader.key() for _ in range(reader.number()))) for _ in range(data[2])]
    return Message(loads, hints)


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
