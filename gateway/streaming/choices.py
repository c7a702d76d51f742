"""Choices: the sinks that one request's answers are pushed into.

A streamed choice writes events as tokens come; a whole one collects them. Both also take the bytes of an
OpenAI-HTTP upstream, which already are the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Protocol

from msgspec.structs import replace

from gateway.api.answers import LogProb
from gateway.streaming.client import PushResponse
from gateway.streaming.text import Assembler
from inference.errors import InferenceError, ProtocolError
from inference.request import InferenceRequest, Usage
from inference.sink import Call, FinishReason, TokenScore
from router.attempts import Outcome
from telemetry.request_trace import AttemptTrace


class Events(Protocol):
    """Encodes the events of one streamed answer (`gateway.api.answers`)."""

    def delta(self, index: int, text: str, logprobs: Sequence[LogProb] | None) -> bytes: ...

    def finish(self, index: int, reason: FinishReason) -> bytes: ...


class Choice:
    """What streamed and whole choices share: the attempt they belong to, and the assembled text."""

    started = False

    def __init__(self, index: int, assembler: Assembler | None) -> None:
        self.index = index
        self.assembler = assembler
        """None where only OpenAI-HTTP upstreams can answer."""
        self.first_token_s: float | None = None
        self.reason: FinishReason = "stop"
        self.relayed_events = 0
        """Events of an OpenAI-HTTP upstream that were passed on."""
        self._trace: AttemptTrace | None = None
        self._outcome: asyncio.Future[Outcome] | None = None
        self._call: Call | None = None

    def attempt_begins(self, trace: AttemptTrace, outcome: asyncio.Future[Outcome]) -> None:
        self._trace = trace
        self._outcome = outcome

    def attempt_runs(self, call: Call) -> None:
        self._call = call

    def ended(self, request: InferenceRequest) -> FinishReason | None:
        """Why the answer is whole although its end was lost."""
        if self.assembler is None or not self.assembler.ids:
            return None
        if self.assembler.ends:
            return "stop"
        return "length" if len(self.assembler.ids) - self._known >= request.max_tokens else None

    def continuation(self, request: InferenceRequest) -> InferenceRequest | None:
        """The rest of the answer: the prompt and what was generated become the new prompt."""
        if self.assembler is None or not self.assembler.ids or request.prompt_ids is None:
            return None
        known = self._known
        fresh = self.assembler.ids[known:]
        self._known = known + len(fresh)
        sampling = request.sampling
        if sampling.min_tokens is not None:
            sampling = replace(sampling, min_tokens=max(0, sampling.min_tokens - len(fresh)))
        return replace(
            request,
            prompt_ids=request.prompt_ids + fresh,
            max_tokens=request.max_tokens - len(fresh),
            sampling=sampling,
        )

    _known = 0
    """Generated tokens that are part of the current attempt's prompt."""

    def why(self, told: FinishReason | None, request: InferenceRequest) -> FinishReason:
        """Why a clean answer ended; engines of 0.19 behind text models do not tell."""
        if told is not None or self.assembler is None:
            return told or "stop"
        return self.assembler.likely_reason(request.max_tokens)

    def head(self) -> None:
        if self._trace is not None:
            self._trace.answered()

    def scores(self, scores: Sequence[TokenScore]) -> None:
        assert self.assembler is not None
        self.assembler.scores(scores)

    def vectors(self, vectors: Sequence[bytes]) -> None:
        del vectors
        raise ProtocolError("the server answered with vectors in place of text")

    def end(self, reason: FinishReason | None, usage: Usage) -> None:
        self._settle((reason, usage))

    def lost(self, error: InferenceError) -> None:
        self._settle(error)

    def _settle(self, outcome: Outcome) -> None:
        if self._outcome is not None and not self._outcome.done():
            self._outcome.set_result(outcome)

    def _first(self) -> None:
        self.first_token_s = monotonic()
        if self._trace is not None:
            self._trace.first_token()

    def _stop_here(self) -> None:
        """A stop string was met before the engine noticed: free its slot."""
        if self._call is not None:
            self._call.cancel()
        self.end("stop", Usage())


class StreamedChoice(Choice):
    """Writes each delta to the client as it comes."""

    def __init__(
        self, index: int, assembler: Assembler | None, events: Events, opening: bytes, response: PushResponse
    ) -> None:
        super().__init__(index, assembler)
        self._events = events
        self._opening = opening
        self._response = response
        self.flush = response.flush
        """What one read brought goes out in one write."""

    def attempt_begins(self, trace: AttemptTrace, outcome: asyncio.Future[Outcome]) -> None:
        super().attempt_begins(trace, outcome)
        if self.started:
            trace.first_token()

    def attempt_runs(self, call: Call) -> None:
        super().attempt_runs(call)
        self._response.feeds_from(call)

    def tokens(self, ids: Sequence[int], log_probs: Sequence[float] | None) -> None:
        assert self.assembler is not None
        text = self.assembler.tokens(ids, log_probs)
        if not self.started:
            self._open()
        if text:
            self._response.push(self._events.delta(self.index, text, self.assembler.take_log_probs()))
        if self.assembler.stopped:
            self._stop_here()

    def text(self, delta: str) -> None:
        assert self.assembler is not None
        text = self.assembler.text(delta)
        if not self.started:
            self._open()
        if text:
            self._response.push(self._events.delta(self.index, text, None))
        if self.assembler.stopped:
            self._stop_here()

    def data(self, data: bytes) -> None:
        if not self.started:
            self.started = True
            self._first()
            self._response.begin()
        self.relayed_events += data.count(b"\n\n")
        self._response.push(data)

    def close(self, reason: FinishReason) -> None:
        """Push what was held back and the finish event."""
        if not self.started:
            self._open()
        if self.assembler is not None:
            text = self.assembler.flush()
            log_probs = self.assembler.take_log_probs()
            if text or log_probs:
                self._response.push(self._events.delta(self.index, text, log_probs))
            reason = "stop" if self.assembler.stopped else reason
        self._response.push(self._events.finish(self.index, reason))

    def _open(self) -> None:
        self.started = True
        self._first()
        if not self._response.begun:
            self._response.begin()
        self._response.push(self._opening)


class WholeChoice(Choice):
    """Collects an answer; nothing reaches the client before its end, so any attempt may begin anew."""

    def __init__(self, index: int, make_assembler: Callable[[], Assembler] | None) -> None:
        super().__init__(index, make_assembler() if make_assembler else None)
        self._make_assembler = make_assembler
        self._parts: list[str] = []
        self.body: bytes | None = None

    def attempt_begins(self, trace: AttemptTrace, outcome: asyncio.Future[Outcome]) -> None:
        super().attempt_begins(trace, outcome)
        if self._parts and self._make_assembler is not None:
            self.assembler = self._make_assembler()
        self._parts = []

    def tokens(self, ids: Sequence[int], log_probs: Sequence[float] | None) -> None:
        assert self.assembler is not None
        if self.first_token_s is None:
            self._first()
        self._parts.append(self.assembler.tokens(ids, log_probs))
        if self.assembler.stopped:
            self._stop_here()

    def text(self, delta: str) -> None:
        assert self.assembler is not None
        if self.first_token_s is None:
            self._first()
        self._parts.append(self.assembler.text(delta))
        if self.assembler.stopped:
            self._stop_here()

    def data(self, data: bytes) -> None:
        self._first()
        self.body = data

    def flush(self) -> None: ...

    def close(self, reason: FinishReason) -> str:
        """The whole text; `reason` holds the finish reason afterwards."""
        if self.assembler is not None:
            self._parts.append(self.assembler.flush())
            reason = "stop" if self.assembler.stopped else reason
        self.reason = reason
        return "".join(self._parts)
