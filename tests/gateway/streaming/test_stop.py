"""Stop strings are cut wherever chunk borders fall."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from gateway.streaming.stop import StopMatcher

_TEXT = st.text(alphabet="abcé", max_size=30)
_STOPS = st.lists(st.text(alphabet="abcé", min_size=1, max_size=4), min_size=1, max_size=4)


def _run(stops: tuple[str, ...], chunks: list[str], *, keep: bool = False) -> tuple[str, bool]:
    matcher = StopMatcher(stops, keep)
    out = []
    for chunk in chunks:
        text, stopped = matcher.push(chunk)
        out.append(text)
        if stopped:
            return "".join(out), True
    out.append(matcher.flush())
    return "".join(out), False


@given(_TEXT, _STOPS, st.lists(st.integers(0, 30), max_size=8))
def test_any_chunking_gives_the_text_before_the_first_stop(
    text: str, stops: list[str], borders: list[int]
) -> None:
    """The cut does not depend on how the text arrived; nothing before it is lost."""
    cuts = sorted({0, len(text), *(border for border in borders if border <= len(text))})
    chunks = [text[a:b] for a, b in pairwise(cuts)]
    # Character by character, the stop that completes first wins; that is also what a client would have seen.
    ends = [
        (end, end - len(stop)) for end in range(len(text) + 1) for stop in stops if text[:end].endswith(stop)
    ]
    got, stopped = _run(tuple(stops), chunks)
    assert stopped == bool(ends)
    end, start = min(ends, default=(len(text), len(text)))
    assert got == text[:start]
    assert _run(tuple(stops), chunks, keep=True) == (text[:end], stopped)


def test_text_that_cannot_begin_a_stop_is_not_held_back() -> None:
    """Waiting costs latency: only a possible beginning waits."""
    matcher = StopMatcher(("\n\nUser:",))
    assert matcher.push("hello") == ("hello", False)
    assert matcher.push(" there\n") == (" there", False)
    assert matcher.push("x") == ("\nx", False)


@given(_TEXT, _STOPS)
def test_the_stop_that_was_met_is_named(text: str, stops: list[str]) -> None:
    """It stands in the text right after what goes out."""
    matcher = StopMatcher(tuple(stops))
    out, stopped = matcher.push(text)
    assert (matcher.met in stops) is stopped
    if stopped and matcher.met is not None:
        assert text.startswith(out + matcher.met)
    else:
        assert matcher.met is None
