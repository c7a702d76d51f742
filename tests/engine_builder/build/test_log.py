"""What programs write becomes lines: no colours, thinned progress bars, bounded memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine_builder.build.log import MAX_LINE_BYTES, TAIL_LINES, Lines, LogFile


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"one\ntwo\n", ["one", "two"]),
        (b"\x1b[1;31mred\x1b[0m \x1b]0;title\x07and \xff\n", ["red and \ufffd"]),
        (b"dos\r\nlines\r\n", ["dos", "lines"]),
        (b"\n\nafter blank ones\n", ["", "", "after blank ones"]),
        (b"bell\x07 tab\there\n", ["bell tab\there"]),
    ],
)
def test_lines_are_plain_text(data: bytes, lines: list[str]) -> None:
    """However the bytes arrive: at once, or one by one."""
    assert Lines().feed(data, 0.0) == lines
    bytewise = Lines()
    assert [line for byte in data for line in bytewise.feed(bytes([byte]), 0.0)] == lines


def test_a_progress_bar_shows_once_a_second_and_as_it_ended() -> None:
    lines = Lines()
    shown = [line for tick in range(40) for line in lines.feed(b"\r%d%%" % tick, tick / 10)]
    assert shown == ["0%", "10%", "20%", "30%"]
    assert lines.feed(b"\r100%\n", 4.0) == ["100%"]
    assert lines.feed(b"next\n", 4.1) == ["next"]


def test_a_bar_that_was_covered_last_is_not_lost() -> None:
    """`\\r` ends the last state, and the stream with it."""
    lines = Lines()
    assert lines.feed(b"50%\r99%\r", 0.0) == ["50%"]
    assert lines.end() == ["99%"]


def test_a_line_without_end_takes_little_memory() -> None:
    lines = Lines()
    found = lines.feed(b"x" * (3 * MAX_LINE_BYTES + 5), 0.0)
    assert [len(line) for line in found] == [MAX_LINE_BYTES] * 3
    assert lines.end() == ["xxxxx"]


def test_a_log_keeps_its_end_in_memory_and_its_begin_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one that is too long the file says so."""
    monkeypatch.setattr("engine_builder.build.log.MAX_LOG_BYTES", 1000)
    with LogFile(tmp_path / "log") as log:
        for number in range(500):
            log.write(f"line {number}")
    assert list(log.tail) == [f"line {number}" for number in range(500 - TAIL_LINES, 500)]
    kept = (tmp_path / "log").read_text().splitlines()
    assert (kept[0], kept[-1]) == ("line 0", "... the log is longer than is kept")
    assert (tmp_path / "log").stat().st_size < 1100
