"""Timing: how long an answered attempt took to its first token and between tokens. Pure.

What the engine tells of itself counts before what was seen here: a client that reads slowly holds up what is
seen, and of an answer that is not streamed nothing is seen until it is whole.
"""

from __future__ import annotations

from msgspec import Struct

from inference.request import EngineTimes, Usage
from telemetry import names
from telemetry.request_trace import Attributes


class Timing(Struct, frozen=True, gc=False):
    """One attempt's, in seconds; None: not known."""

    ttft_s: float | None = None
    """From its dispatch to its first token."""
    itl_s: float | None = None
    """Between two of its tokens, in the mean."""
    engine: EngineTimes | None = None
    """As its engine told it."""

    @property
    def unqueued_ttft_s(self) -> float | None:
        """What the first token took without the time in the engine's queue."""
        if self.ttft_s is None or self.engine is None:
            return None
        return max(0.0, self.ttft_s - self.engine.queue_s)


UNTIMED = Timing()
"""Nothing was seen of an answer, and its engine tells nothing."""


def timed(usage: Usage, sent_s: float, first_s: float | None, now_s: float) -> Timing:
    """Of an attempt that was dispatched at `sent_s` and is whole at `now_s`.

    `first_s`: when its first token was seen; None: it was not streamed, or was broken and goes on. What is
    not decode of such an answer is taken to have come before its first token.
    """
    engine, tokens = usage.engine, usage.completion_tokens
    if engine is None and first_s is None:
        return UNTIMED
    if engine is not None:
        decode_s: float | None = engine.decode_s
    else:
        decode_s = None if first_s is None else now_s - first_s
    if first_s is None and decode_s is not None:
        first_s = max(sent_s, now_s - decode_s)
    return Timing(
        None if first_s is None else first_s - sent_s,
        None if decode_s is None or tokens is None or tokens < 2 else decode_s / (tokens - 1),
        engine,
    )


def trace_attributes(engine: EngineTimes | None) -> Attributes | None:
    """What an attempt's span says of its time at the engine."""
    if engine is None:
        return None
    return {
        names.ENGINE_QUEUE_S: engine.queue_s,
        names.ENGINE_PREFILL_S: engine.prefill_s,
        names.ENGINE_DECODE_S: engine.decode_s,
    }
