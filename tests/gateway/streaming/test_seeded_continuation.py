"""A broken stream that is drawn by a seed: asked for again, and what the client has is passed over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest

from gateway.streaming.choices import StreamedChoice
from inference.errors import StreamBrokenError
from inference.request import InferenceRequest, Sampling


class Text:
    """An assembler that keeps ids only."""

    stopped = False

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.log_probs: list[float] = []

    def tokens(self, ids: Sequence[int], log_probs: Sequence[float] | None) -> str:
        self.ids += ids
        self.log_probs += log_probs or ()
        return ""


class Events:
    def opening(self, index: int) -> bytes:
        return b""


class Response:
    begun = True

    def push(self, data: bytes) -> None: ...

    def flush(self) -> None: ...


def choice(text: Text) -> StreamedChoice:
    return StreamedChoice(0, cast("Any", text), cast("Any", Events()), cast("Any", Response()))


def asked(**sampling: Any) -> InferenceRequest:
    return InferenceRequest(
        id="r", model="m", stream=True, max_tokens=9, sampling=Sampling(**sampling), prompt_ids=[1]
    )


SEEDED: dict[str, Any] = {"seed": 7, "temperature": 1.0}


def test_the_same_tokens_are_passed_over_however_they_come() -> None:
    text = Text()
    streamed = choice(text)
    streamed.tokens([10, 11, 12], [0.1, 0.2, 0.3])
    request = asked(**SEEDED)
    assert streamed.continuation(request) == request
    streamed.tokens([10], [0.1])
    streamed.tokens([11, 12, 13], [0.2, 0.3, 0.4])
    streamed.tokens([14], [0.5])
    assert text.ids == [10, 11, 12, 13, 14]
    assert text.log_probs == [0.1, 0.2, 0.3, 0.4, 0.5]


def test_a_second_break_before_they_have_all_come_asks_for_the_rest() -> None:
    """Whatever keeps them from coming again, the client is not kept waiting for it twice."""
    text = Text()
    streamed = choice(text)
    streamed.tokens([10, 11, 12], None)
    request = asked(**SEEDED)
    again = streamed.continuation(request)
    assert again == request
    assert again is not request, "tokens had come: that counts as progress"
    streamed.tokens([10, 11], None)
    rest = streamed.continuation(request)
    assert rest is not None
    assert (rest.prompt_ids, rest.max_tokens) == ([1, 10, 11, 12], 6)
    streamed.tokens([13], None)
    assert text.ids == [10, 11, 12, 13]


def test_an_engine_that_draws_otherwise_is_left_and_the_rest_is_asked_for() -> None:
    """A whole answer that is not the unbroken one is better than none."""
    text = Text()
    streamed = choice(text)
    streamed.tokens([10, 11], None)
    streamed.continuation(asked(**SEEDED))
    with pytest.raises(StreamBrokenError):
        streamed.tokens([10, 99], None)
    assert text.ids == [10, 11]
    rest = streamed.continuation(asked(**SEEDED))
    assert rest is not None
    assert (rest.prompt_ids, rest.max_tokens) == ([1, 10, 11], 7)
    streamed.tokens([12], None)
    assert text.ids == [10, 11, 12]


@pytest.mark.parametrize("sampling", [{"temperature": 0, "seed": 7}, {"top_k": 1, "seed": 7}, {}])
def test_greedy_and_unseeded_answers_go_on_where_they_were(sampling: dict[str, Any]) -> None:
    """That costs a prefill; nothing is generated twice."""
    streamed = choice(Text())
    streamed.tokens([10, 11], None)
    rest = streamed.continuation(asked(**sampling))
    assert rest is not None
    assert rest.prompt_ids == [1, 10, 11]
