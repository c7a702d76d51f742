"""Chunks with their framing, against the parser that reads everything else."""

from __future__ import annotations

import httptools
from hypothesis import example, given
from hypothesis import strategies as st

from inference.http_chunks import body_of, framed, is_one_chunk


class _Parsed:
    """What llhttp makes of a chunked body."""

    def __init__(self, data: bytes) -> None:
        self.bodies: list[bytes] = []
        self.over = 0
        parser = httptools.HttpResponseParser(self)
        parser.feed_data(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        parser.feed_data(data)

    def on_body(self, data: bytes) -> None:
        self.bodies.append(data)

    def on_chunk_complete(self) -> None:
        self.over += 1


@given(st.binary(min_size=1, max_size=300))
@example(b"x" * 15)
@example(b"x" * 16)
@example(b"x" * 4087)
@example(b"x" * 4088)
@example(b"x" * 10_000)
def test_what_is_framed_is_one_chunk_to_the_parser(data: bytes) -> None:
    chunk = framed(data)
    parsed = _Parsed(chunk)
    assert (parsed.bodies, parsed.over) == ([data], 1)
    assert body_of(chunk) == data
    assert is_one_chunk(chunk) == (len(chunk) < 4096)


@given(
    st.lists(st.sampled_from([b"0", b"5", b"f", b"10", b"\r\n", b"abcde", b"x", b";a=b", b"\n"]), max_size=8)
)
def test_what_is_taken_for_one_chunk_is_one(pieces: list[bytes]) -> None:
    """And nothing else is: no end mark, no extension, no half of one, no two."""
    data = b"".join(pieces)
    if is_one_chunk(data):
        parsed = _Parsed(data)
        assert (parsed.bodies, parsed.over) == ([body_of(data)], 1)


def test_no_other_form_is_taken_for_one_chunk() -> None:
    for data in (
        b"",
        b"\r\n",
        b"0\r\n\r\n",
        b"1\r\nab\r\n",
        b"2\r\nab\r",
        b"2;x\r\nab\r\n",
        b"02\r\nab\r\n",
        b"A\r\n" + b"x" * 10 + b"\r\n",
        b"1\r\na\r\n1\r\nb\r\n",
    ):
        assert not is_one_chunk(data), data
