"""Chaos: what counts as which ending, and who is struck."""

from __future__ import annotations

import pytest

from bench.chaos.__main__ import PARTS, watched_stack
from bench.chaos.blows import BLOWS
from bench.chaos.leaving import STATS_PERIOD_MS
from bench.chaos.streams import TOKENS, Ending, body, take
from enginehouse.local.stack import LocalStack

CHUNK = b'data: {"choices":[{"delta":{"content":"a"},"finish_reason":%s}]}'


def ending_of(*lines: bytes, broken: bool = False) -> Ending:
    ending = Ending(broken=broken)
    for line in lines:
        take(ending, line)
    return ending


USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":%d}}'
WELL = ending_of(CHUNK % b"null", CHUNK % b'"length"', USAGE % TOKENS, b"data: [DONE]")
SHORT = ending_of(CHUNK % b'"length"', USAGE % (TOKENS - 1), b"data: [DONE]")
TOLD = ending_of(CHUNK % b"null", b'data: {"error":{"code":"stream_broken"}}', broken=True)
BROKEN = ending_of(CHUNK % b"null", broken=True)
CUT = ending_of(CHUNK % b"null", b"data: [DONE]")
SILENT = ending_of(CHUNK % b"null")


def test_a_stream_is_read_to_its_end() -> None:
    assert (WELL.text, WELL.prompt_tokens, WELL.tokens, WELL.finish) == ("aa", 7, TOKENS, "length")
    assert CUT.falsely_clean
    assert SILENT.silent
    assert not any(one.falsely_clean or one.silent for one in (WELL, TOLD, BROKEN))


@pytest.mark.parametrize(
    ("part", "allowed"),
    [
        ("redis", [WELL]),
        ("controller", [WELL]),
        ("worker", [WELL, BROKEN]),
        ("triton", [WELL]),
        ("model process", [WELL]),
        ("triton, text", [WELL, TOLD]),
    ],
)
def test_only_what_is_promised_may_be_seen(part: str, allowed: list[Ending]) -> None:
    every = [WELL, SHORT, TOLD, BROKEN, CUT, SILENT]
    assert [one for one in every if BLOWS[part].may_end(one)] == allowed


def test_a_blow_for_text_that_came_too_late_is_not_met() -> None:
    some = BLOWS["triton, text"].some
    assert some is not None
    assert some(TOLD)
    assert not some(WELL)


def test_the_demo_is_what_is_struck() -> None:
    """With counters as quick as its slots."""
    engines = [engine for server in watched_stack()["servers"] for engine in server["engines"]]
    assert {engine["stats_check_period_ms"] for engine in engines} == {STATS_PERIOD_MS}
    LocalStack.model_validate(watched_stack())


def test_every_part_can_be_named() -> None:
    assert set(PARTS) == {"many", "leaving", *BLOWS}


def test_lengths_are_asked_for_where_engines_take_them() -> None:
    assert body("house-chat+sailor:latency")["min_tokens"] == TOKENS
    assert "min_tokens" not in body("depot-chat")
