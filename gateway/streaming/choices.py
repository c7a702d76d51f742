"""Choices: the sinks that one request's answers are pushed into.

A streamed choice writes events as tokens come; a whole one (`whole_choice`) collects them. Both also take
the bytes of an OpenAI-HTTP upstream, which already are the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import monotonic

from msgspec.structs import replace

from gateway.operations import Events
from gateway.streaming.client import PushResponse
from gateway.streaming.parts import Part, PartParser, Reasoning, Text, ToolArguments, ToolCall, parts_of
from gateway.streaming.text import Assembler
from inference.errors import InferenceError, ProtocolError, StreamBrokenError
from inference.request import InferenceRequest, Usage
from inference.sink import Call, Delta, TokenScore
from inference.sink import FinishReason as EngineReason
from router.answer import Outcome
from telemetry.request_trace import AttemptTrace

_STOP_GRACE_S = 0.01


class Choice:
    """What streamed and whole choices share: the attempt they belong to, and the assembled text."""

    started = False
    first_token_s: float | None = None
    relayed_events = 0
    """Events of an OpenAI-HTTP upstream that were passed on."""
    stop: str | None = None
    """The stop string that ended the answer, where it is known."""
    _trace: AttemptTrace | None = None
    _outcome: asyncio.Future[Outcome] | None = None
    _call: Call | None = None

    def __init__(self, index: int, assembler: Assembler | None) -> None:
        self.index = index
        self.assembler = assembler
        """None where only OpenAI-HTTP upstreams can answer."""

    def attempt_begins(self, trace: AttemptTrace, outcome: asyncio.Future[Outcome]) -> None:
        self._trace = trace
        self._outcome = outcome

    def attempt_outcome(self, outcome: asyncio.Future[Outcome]) -> None:
        """As `attempt_begins`, of an attempt that is not traced."""
        self._outcome = outcome

    def attempt_runs(self, call: Call) -> None:
        self._call = call

    def ended(self, request: InferenceRequest) -> EngineReason | None:
        """Why the answer is whole although its end was lost."""
        if self.assembler is None or not self.assembler.ids:
            return None
        if self.assembler.ends:
            return "stop"
        return "length" if len(self.assembler.ids) - self._known >= request.max_tokens else None

    def continuation(self, request: InferenceRequest) -> InferenceRequest | None:
        """The rest of the answer: the prompt and what was generated become the new prompt.

        Not with a guide, which would begin anew in the midst of the answer.
        """
        if self.assembler is None or not self.assembler.ids or request.prompt_ids is None:
            return None
        if request.guide is not None:
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

    def head(self) -> None:
        if self._trace is not None:
            self._trace.answered()

    def scores(self, scores: Sequence[TokenScore]) -> None:
        assert self.assembler is not None
        self.assembler.scores(scores)

    def vectors(self, vectors: Sequence[bytes]) -> None:
        del vectors
        raise ProtocolError("the server answered with vectors in place of text")

    def end(self, reason: EngineReason | None, usage: Usage, stop: str | None = None) -> None:
        self.stop = stop
        self._settle(("stop" if self._stopping else reason, usage))

    def lost(self, error: InferenceError) -> None:
        self._settle(("stop", Usage()) if self._stopping else error)

    def _settle(self, outcome: Outcome) -> None:
        if self._outcome is not None and not self._outcome.done():
            self._outcome.set_result(outcome)

    def _first(self) -> None:
        self.first_token_s = monotonic()
        if self._trace is not None:
            self._trace.first_token()

    _stopping = False
    """A stop string was met; what still comes is only the end."""

    def _stop_here(self) -> None:
        """A stop string was met. The engine mostly knows it too, and ends by itself with its usage; one that
        does not gives up its slot after a moment.
        """
        if not self._stopping:
            self._stopping = True
            asyncio.get_running_loop().call_later(_STOP_GRACE_S, self._give_up)

    def _give_up(self) -> None:
        if self._outcome is not None and not self._outcome.done():
            if self._call is not None:
                self._call.cancel()
            self._settle(("stop", Usage()))


class StreamedChoice(Choice):
    """Writes each delta to the client as it comes."""

    def __init__(
        self,
        index: int,
        assembler: Assembler | None,
        events: Events,
        response: PushResponse,
        parser: PartParser | None = None,
        echo: str = "",
    ) -> None:
        """`echo`: what the answer begins with before anything was generated."""
        super().__init__(index, assembler)
        self._echo = echo
        self._events = events
        self._response = response
        self._parser = parser
        self.flush = response.flush
        """What one read brought goes out in one write."""

    def attempt_begins(self, trace: AttemptTrace, outcome: asyncio.Future[Outcome]) -> None:
        super().attempt_begins(trace, outcome)
        if self.started:
            trace.first_token()

    def attempt_runs(self, call: Call) -> None:
        super().attempt_runs(call)
        self._response.feeds_from(call)

    def continuation(self, request: InferenceRequest) -> InferenceRequest | None:
        """As of any choice, but one that is drawn by a seed is asked for again from its begin.

        An engine's draws begin with the request: only so the answer is that of an unbroken stream. What the
        client has comes again, and is passed over.
        """
        ids = self.assembler.ids if self.assembler is not None else ()
        self.__dict__.pop("tokens", None)  # of an attempt that broke while tokens were passed over
        may_be_drawn_again = len(ids) > self._asked_again_at and not self._known and not self._drawn_otherwise
        if may_be_drawn_again and _is_drawn_by_seed(request):
            self._asked_again_at = len(ids)
            self._pass_over(list(ids))
            return replace(request)
        return super().continuation(request)

    _asked_again_at = 0
    """Tokens that the client had when it was last asked for from its begin."""
    _drawn_otherwise = False
    """Another engine has drawn other tokens from the same seed."""

    def _pass_over(self, known: list[int]) -> None:
        """Take no token before those that are known have come again; StreamBrokenError where others come."""
        come = 0

        def passing(ids: Sequence[int], log_probs: Sequence[float] | None) -> None:
            nonlocal come
            again = min(len(ids), len(known) - come)
            if list(ids[:again]) != known[come : come + again]:
                del self.tokens
                self._drawn_otherwise = True
                raise StreamBrokenError("another engine drew other tokens from the same seed")
            come += again
            if come == len(known):
                del self.tokens
                if again < len(ids):
                    self.tokens(ids[again:], None if log_probs is None else log_probs[again:])

        self.tokens = passing  # type: ignore[method-assign]

    def tokens(self, ids: Sequence[int], log_probs: Sequence[float] | None) -> None:
        assembler = self.assembler
        assert assembler is not None
        text = assembler.tokens(ids, log_probs)
        if not self.started:
            self._open()
        if text:
            if self._parser is None:
                scores = None if log_probs is None else assembler.take_log_probs()
                self._response.push(self._events.delta(self.index, text, scores))
            else:
                self._push_parts(self._parser.push(text))
        if assembler.stopped:
            self._stop_here()

    def text(self, delta: str, tokens: int | None = None) -> None:
        assert self.assembler is not None
        text = self.assembler.text(delta, tokens)
        if not self.started:
            self._open()
        if text:
            if self._parser is None:
                self._response.push(self._events.delta(self.index, text))
            else:
                self._push_parts(self._parser.push(text))
        if self.assembler.stopped:
            self._stop_here()

    def data(self, data: bytes) -> None:
        if not self.started:
            self._relay()
        self.relayed_events += data.count(b"\n\n")
        self._response.push(data)

    def chunk(self, framed: bytes) -> None:
        """As `data` and `flush`: whole events as one HTTP chunk, which nearly always goes out as it came."""
        if not self.started:
            self._relay()
        self.relayed_events += (framed.count(b"\n") - 2) // 2  # a line and an empty one each, and the framing
        self._response.pass_on(framed)

    def _relay(self) -> None:
        self.started = True
        self._first()
        self._response.begin()

    def delta(self, delta: Delta) -> None:
        if not self.started:
            self._open()
        self.relayed_events += 1
        self._push_parts(parts_of(delta))

    def close(self, reason: EngineReason) -> None:
        """Push what was held back and the finish event."""
        if not self.started:
            self._open()
        if self.assembler is not None:
            self._push_held(self.assembler)
            if self.assembler.stopped:
                reason, self.stop = "stop", self.assembler.stopped_at
        called = self._called and reason == "stop"
        self._response.push(self._events.finish(self.index, "tool_calls" if called else reason, self.stop))

    _called = False
    """A tool call was begun."""

    def _push_held(self, assembler: Assembler) -> None:
        text = assembler.flush()
        if self._parser is not None:
            self._push_parts([*self._parser.push(text), *self._parser.flush()])
            text = ""
        log_probs = assembler.take_log_probs()
        if text or log_probs:
            self._response.push(self._events.delta(self.index, text, log_probs))

    def _push_parts(self, parts: list[Part]) -> None:
        """Log probabilities go with the next text, or alone at the end: no other part has room for them."""
        assembler = self.assembler
        events, index, push = self._events, self.index, self._response.push
        for part in parts:
            match part:
                case Text(text):
                    push(events.delta(index, text, assembler.take_log_probs() if assembler else None))
                case Reasoning(text):
                    push(events.reasoning(index, text))
                case ToolCall(call, call_id, name):
                    self._called = True
                    push(events.tool_call(index, call, call_id, name))
                case ToolArguments(call, fragment):
                    push(events.tool_arguments(index, call, fragment))

    def _open(self) -> None:
        self.started = True
        self._first()
        if not self._response.begun:
            self._response.begin()
        self._response.push(self._events.opening(self.index))
        if self._echo:
            self._response.push(self._events.delta(self.index, self._echo))


def _is_drawn_by_seed(request: InferenceRequest) -> bool:
    """Its tokens are drawn, and would be the same again."""
    sampling = request.sampling
    return sampling.seed is not None and sampling.temperature != 0 and sampling.top_k != 1
