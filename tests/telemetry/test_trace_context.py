from __future__ import annotations

import pytest

from telemetry.trace_context import TraceParent, parse_traceparent, usable_tracestate

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("header", "sampled"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-03", True),
        (f" 00-{TRACE}-{SPAN}-01 ", True),
        (f"cc-{TRACE}-{SPAN}-01-what-comes-later", True),
    ],
)
def test_a_wellformed_header_is_read(header: str, sampled: bool) -> None:
    assert TraceParent(TRACE, SPAN, sampled) == parse_traceparent(header)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "junk",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}x-{SPAN}-01",
    ],
)
def test_a_malformed_header_counts_as_absent(header: str | None) -> None:
    assert parse_traceparent(header) is None


def test_a_tracestate_is_sent_on_unless_it_is_empty_or_too_long() -> None:
    assert usable_tracestate(" vendor=1 ") == "vendor=1"
    assert usable_tracestate(None) is None
    assert usable_tracestate("  ") is None
    assert usable_tracestate("v=" + "x" * 511) is None
