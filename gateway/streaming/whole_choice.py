"""WholeChoice: the sink that collects one answer until it is whole."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from gateway.api.answers import CalledTool, LogProb
from gateway.api.answers import Choice as AnswerChoice
from gateway.api.finish import FinishReason
from gateway.streaming.choices import Choice
from gateway.streaming.parts import Part, PartParser, Reasoning, Text, ToolArguments, ToolCall, parts_of
from gateway.streaming.text import Assembler
from inference.sink import Delta
from inference.sink import FinishReason as EngineReason
from router.answer import Outcome
from telemetry.request_trace import AttemptTrace


class WholeChoice(Choice):
    """Collects an answer; nothing reaches the client before its end, so any attempt may begin anew."""

    def __init__(self, index: int, make_assembler: Callable[[], Assembler] | None, echo: str = "") -> None:
        super().__init__(index, make_assembler() if make_assembler else None)
        self._echo = echo
        self._make_assembler = make_assembler
        self._parts: list[str] = []
        self._told: list[Part] = []
        """Parts that the server itself has told apart."""

    body: bytes | None = None
    """Of an OpenAI-HTTP upstream's answer, to be passed on as it is."""

    def attempt_begins(self, trace: AttemptTrace, outcome: asyncio.Future[Outcome]) -> None:
        super().attempt_begins(trace, outcome)
        if self._parts and self._make_assembler is not None:
            self.assembler = self._make_assembler()
        self._parts.clear()
        self._told.clear()
        self._stopping = False

    def tokens(self, ids: Sequence[int], log_probs: Sequence[float] | None) -> None:
        assert self.assembler is not None
        if self.first_token_s is None:
            self._first()
        self._parts.append(self.assembler.tokens(ids, log_probs))
        if self.assembler.stopped:
            self._stop_here()

    def text(self, delta: str, tokens: int | None = None) -> None:
        assert self.assembler is not None
        if self.first_token_s is None:
            self._first()
        self._parts.append(self.assembler.text(delta, tokens))
        if self.assembler.stopped:
            self._stop_here()

    def data(self, data: bytes) -> None:
        self._first()
        self.body = data

    def delta(self, delta: Delta) -> None:
        self._first()
        self._told += parts_of(delta)

    def flush(self) -> None: ...

    def close(self, reason: EngineReason, parser: PartParser | None) -> AnswerChoice:
        """The answer, taken apart by `parser`."""
        log_probs = None
        if self.assembler is not None:
            self._parts.append(self.assembler.flush())
            if self.assembler.stopped:
                reason, self.stop = "stop", self.assembler.stopped_at
            log_probs = self.assembler.take_log_probs()
        if self._told:
            return _taken_apart(self._told, reason, None, self.stop)
        text = self._echo + "".join(self._parts)
        if parser is None:
            return AnswerChoice(text, reason, log_probs, stop=self.stop)
        return _taken_apart([*parser.push(text), *parser.flush()], reason, log_probs, self.stop)


def _taken_apart(
    parts: list[Part], reason: FinishReason, log_probs: list[LogProb] | None, stop: str | None
) -> AnswerChoice:
    thoughts = [part.text for part in parts if isinstance(part, Reasoning)]
    calls = [part for part in parts if isinstance(part, ToolCall)]
    arguments = [part for part in parts if isinstance(part, ToolArguments)]
    return AnswerChoice(
        "".join(part.text for part in parts if isinstance(part, Text)),
        "tool_calls" if calls and reason == "stop" else reason,
        log_probs,
        "".join(thoughts) if thoughts else None,
        [
            CalledTool(call.id, call.name, "".join(a.fragment for a in arguments if a.call == call.call))
            for call in calls
        ],
        stop,
    )
