"""Traces: what can be read, and what is said of what cannot."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from router.replay.workload import TraceError, bundled, read

MOONCAKE = (
    '{"timestamp": 0, "input_length": 1200, "output_length": 5, "hash_ids": [0, 1, 2]}\n'
    '{"timestamp": 500, "input_length": 600, "output_length": 7, "hash_ids": [0, 3]}\n'
)


def test_mooncakes_and_azures_traces_are_read_as_they_are_published(tmp_path: Path) -> None:
    """Packed or not; only whole blocks of a prompt count."""
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(MOONCAKE.encode()))
    first, second = read(tmp_path / "a.jsonl.gz").requests
    assert (first.blocks, second.blocks) == ((0, 1), (0,))
    assert second.arrival_s == 0.5
    (tmp_path / "b.csv").write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:48.6805900,396,109\n"
    )
    first, second = read(tmp_path / "b.csv").requests
    assert (first.prompt_tokens, first.output_tokens, second.arrival_s) == (374, 44, 2.0)


def test_the_bundled_conversation_is_the_published_one() -> None:
    """The facts that its publishers and others print of it."""
    trace = bundled("mooncake")
    seen: set[int] = set()
    total = again = 0
    for request in trace.requests:
        total += len(request.blocks)
        again += sum(block in seen for block in request.blocks)
        seen.update(request.blocks)
    assert len(trace.requests) == 12_031
    assert pytest.approx(3.0, abs=0.01) == trace.tick_s
    assert pytest.approx(0.37, abs=0.02) == again / total


def test_a_rate_is_a_faster_clock_with_ticks_spread_by_seed() -> None:
    """The same seed gives the same times; nothing else of a request changes."""
    trace = bundled("mooncake")
    once, again, other = trace.at(6.0, 1), trace.at(6.0, 1), trace.at(6.0, 2)
    assert pytest.approx(6.0, rel=0.01) == once.rate
    assert once == again
    assert once != other
    assert len({one.arrival_s for one in once.requests}) == len(once.requests)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "line 1: is neither"),
        (MOONCAKE[:82], "holds 1 requests"),
        (MOONCAKE.replace("600", '"x"'), "line 2: .*input_length"),
        (MOONCAKE.replace("600", "0"), "line 2: .*one token at least"),
        (MOONCAKE.replace('"timestamp": 500', '"timestamp": 0'), "same time"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\nnow,1,2\n", "line 2: .*a time and two whole numbers"),
        ("timestamp,input_length,output_length,hash_runs\n0,1,2,a-b\n", "line 2: .*runs of hashes"),
    ],
)
def test_a_bad_trace_names_line_and_remedy(tmp_path: Path, text: str, complaint: str) -> None:
    """Never a traceback of a parser."""
    (tmp_path / "bad").write_text(text)
    with pytest.raises(TraceError, match=complaint):
        read(tmp_path / "bad")
    with pytest.raises(TraceError, match="can be read"):
        read(tmp_path / "missing")
