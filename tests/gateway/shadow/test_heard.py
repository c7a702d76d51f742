"""Answers side by side: what differs for a client counts, and nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.shadow.heard import Heard, agreed, compare, is_error, text_of, upstream_text
from gateway.streaming.text import Assembler
from inference.errors import ServerBusyError, ServerFailedError, UnsupportedFeatureError
from inference.tokenizer import ModelTokenizer, Tokenizers
from model_registry.entities import Model


def heard(text: str | None = "Yes.", reason: str = "stop", tokens: int = 10, **times: float) -> Heard:
    return Heard(text, reason, tokens, times.get("total_s", 1.0), times.get("ttft_s"))


def test_texts_are_compared_where_they_should_be_the_same() -> None:
    assert compare(heard(), heard(), repeatable=True)[:3] == (False, 1.0, False)
    assert compare(heard("abcd"), heard("abXY"), repeatable=True)[:2] == (True, 0.5)
    assert compare(heard(), heard("No."), repeatable=False).differs is None
    assert compare(heard(None), heard(), repeatable=True).differs is None
    assert compare(heard(), heard(reason="length"), repeatable=False).other_reason


@pytest.mark.parametrize(
    ("one", "other", "share"), [("", "", 1.0), ("", "a", 0.0), ("abc", "abcdef", 0.5), ("ab", "ab", 1.0)]
)
def test_agreement_ends_with_the_first_difference(one: str, other: str, share: float) -> None:
    assert agreed(one, other) == agreed(other, one) == share


def test_times_are_compared_alike() -> None:
    """By time per token after the first where both saw it, else by the whole answer's for both."""
    streamed = heard(total_s=1.1, ttft_s=0.2)
    slower = heard(total_s=2.1, ttft_s=0.3)
    assert compare(streamed, slower, repeatable=True)[3:] == pytest.approx((1.0, 2.0, 1.5))
    whole = heard(total_s=2.2)
    found = compare(streamed, whole, repeatable=True)
    assert (found.pace, found.ttft) == (pytest.approx(2.0), None)
    assert compare(heard(tokens=0), heard(), repeatable=True)[3:] == (None, None, None)


def event(**delta: Any) -> bytes:
    return b"data: " + json.dumps({"choices": [{"delta": delta, "finish_reason": None}]}).encode() + b"\n\n"


END = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


def test_an_upstreams_bytes_are_read_whatever_their_shape() -> None:
    """Whole, as events, and as events in HTTP chunks: the same text."""
    whole = {"choices": [{"message": {"content": "Hi you"}, "finish_reason": "stop"}]}
    events = event(role="assistant") + event(content="Hi") + event(content=" you") + END
    framed = b"".join(
        b"%x\r\n%s\r\n" % (len(one), one) for one in (event(content="Hi"), event(content=" you"), END)
    )
    told = [upstream_text(body) for body in (json.dumps(whole).encode(), events, framed)]
    assert told[0] is not None
    assert told == [told[0]] * 3
    assert told[0].reason == "stop"
    completion = {"choices": [{"text": "Hi you", "finish_reason": "length"}]}
    assert upstream_text(json.dumps(completion).encode()) == (told[0].text, "length")


def test_thoughts_and_calls_count_and_ids_of_calls_do_not() -> None:
    def call(call_id: str, city: str) -> bytes:
        function = {"name": "weather", "arguments": json.dumps({"city": city})}
        return event(tool_calls=[{"index": 0, "id": call_id, "function": function}]) + END

    one, same, other = (upstream_text(call(*what)) for what in (("a", "Rome"), ("b", "Rome"), ("a", "Bonn")))
    assert one == same != other
    assert upstream_text(event(reasoning_content="hm", content="x") + END) != upstream_text(
        event(content="x") + END
    )


@pytest.mark.parametrize("body", [b"", b"<html>", b"[1]", b'{"choices": 3}', b'{"choices": [4]}'])
def test_what_is_not_understood_is_not_compared(body: bytes) -> None:
    assert upstream_text(body) is None


@pytest.fixture
async def tokenizer() -> ModelTokenizer:
    model = Model(name="m", context_length=100, tokenizer="emulator/models/depot-chat")
    return await Tokenizers().get(model)


async def test_ids_are_heard_as_their_client_reads_them(tokenizer: ModelTokenizer) -> None:
    """Cut at its stop string, whether the engine stopped there or went on."""

    def make() -> Assembler:
        return Assembler(tokenizer, ("stop",), log_probs=False)

    texts = []
    for said in ("One, two, stop", "One, two, stop, three"):
        assembler = make()
        assembler.ids += tokenizer.encode(said, add_special_tokens=False)
        texts.append(text_of(assembler, make, None))
    by_text = make()
    by_text.text("One, two, stop")
    texts.append(text_of(by_text, make, None))
    assert texts == [texts[0]] * 3
    assert "two" in texts[0]
    assert "stop" not in texts[0]


def test_an_engine_that_is_only_busy_is_not_blamed() -> None:
    assert not is_error(ServerBusyError("full"))
    assert is_error(ServerFailedError("broken"))
    assert is_error(UnsupportedFeatureError("no logprobs", "logprobs"))
