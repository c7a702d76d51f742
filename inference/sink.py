"""Sink: where a model server's answer is pushed as it arrives.

Calls come synchronously from the transport's `data_received`; no task wakes per chunk. Order: `head`
at most once, then any number of `tokens`/`scores`/`text`/`data`/`delta`/`vectors` with a `flush` after each
group, then exactly one of `end` or `lost`. After `Call.cancel` nothing more is called. A sink that has a
method `chunk(framed)` is given the events of an OpenAI-HTTP answer that came as one HTTP chunk with its
framing, in place of `data` and `flush`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

from inference.errors import InferenceError
from inference.request import Usage

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]
"""The last two come from servers that speak OpenAI only."""


class CallDelta(NamedTuple):
    """A piece of a tool call; calls are counted from 0 and never interleave."""

    call: int
    begun: tuple[str, str] | None
    """Id and name, with a call's first piece."""
    arguments: str


class Delta(NamedTuple):
    """New parts of an answer that its own server has told apart."""

    text: str = ""
    reasoning: str = ""
    calls: Sequence[CallDelta] = ()


class TokenScore(NamedTuple):
    """One generated token of a text lane, and what else it might have been."""

    token: int
    log_prob: float
    top: tuple[tuple[int, float], ...] = ()
    """The likeliest tokens with their log probabilities, best first."""


class Sink(Protocol):
    """Takes one answer."""

    def head(self) -> None:
        """The server accepted the request; nothing of the answer has been read yet."""

    def tokens(self, ids: Sequence[int], log_probs: Sequence[float] | None) -> None:
        """New generated tokens (token-id lanes), including an end token if the engine emits it."""

    def text(self, delta: str, tokens: int | None = None) -> None:
        """New generated text (text lanes); always a delta, whatever the lane sends.

        `tokens`: of how many new tokens the server tells; their text may be held back yet.
        """

    def scores(self, scores: Sequence[TokenScore]) -> None:
        """The tokens that the next `text` is made of, where a text lane was asked for log probabilities."""

    def vectors(self, vectors: Sequence[bytes]) -> None:
        """Embeddings, one for each input in its order, as 32-bit floats of this machine; once and whole."""

    def data(self, data: bytes) -> None:
        """Bytes of an OpenAI-HTTP answer, to be relayed as they are."""

    def delta(self, delta: Delta) -> None:
        """Parts of an OpenAI-HTTP answer that is read, not relayed."""

    def flush(self) -> None:
        """Everything that one read brought has been pushed: write it out together."""

    def end(self, reason: FinishReason | None, usage: Usage, stop: str | None = None) -> None:
        """The answer is complete. `reason` is None where the server does not tell.

        `stop`: the stop string that the server itself cut off, where it names it.
        """

    def lost(self, error: InferenceError) -> None:
        """The call failed, before or after a first token; what was pushed before stays pushed."""


class Call(Protocol):
    """A call under way."""

    def cancel(self) -> None:
        """Free the engine's slot and call the sink no more. Harmless when already over."""

    def pause(self) -> None:
        """Stop reading from the server: the client is slower than the engine."""

    def resume(self) -> None:
        """Read again."""
