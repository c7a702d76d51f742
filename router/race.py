"""Race: two attempts for one answer, of which only the first to bring something reaches it.

Each attempt pushes into a gate of its own. The first one with anything of the answer to push opens its gate;
the other's call is cancelled in the same moment, before a byte has passed. An open gate steps aside: the
server's tokens then go straight to the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from inference.errors import InferenceError
from inference.request import InferenceRequest, Usage
from inference.sink import Call, Delta, FinishReason, TokenScore
from model_registry.entities import Endpoint
from router.answer import Answer, Outcome
from telemetry.request_trace import AttemptTrace

_PUSHES = ("tokens", "text", "scores", "vectors", "data", "delta", "flush", "end", "lost")
Run = Callable[[Endpoint, Answer], Awaitable[Outcome]]
Told = Callable[[Endpoint, str], None]


class OvertakenError(InferenceError):
    """Another attempt brought the first token; nothing of this one was used."""

    outcome = "overtaken"


class Gate:
    """One attempt's way to the answer."""

    def __init__(self, answer: Answer, opens: Callable[[Gate], None]) -> None:
        """`opens` is called once, before the first push passes."""
        self._answer = answer
        self._opens = opens
        self._trace: AttemptTrace | None = None
        self._outcome: asyncio.Future[Outcome] | None = None
        self._call: Call | None = None
        self.is_open = False
        self.is_shut = False
        """For good: the other attempt was first."""
        if hasattr(answer, "chunk"):
            self.chunk = self._chunk

    @property
    def started(self) -> bool:
        return self.is_open and self._answer.started

    def shut(self) -> None:
        """End the attempt; nothing of it passes."""
        self.is_shut = True
        if self._call is not None:
            self._call.cancel()
        self._settle(OvertakenError("another attempt was first"))

    def attempt_begins(self, trace: AttemptTrace, outcome: asyncio.Future[Outcome]) -> None:
        self._trace, self._outcome = trace, outcome
        if self.is_shut:
            self.shut()

    def attempt_runs(self, call: Call) -> None:
        self._call = call
        if self.is_open:
            self._answer.attempt_runs(call)
        elif self.is_shut:
            call.cancel()

    def ended(self, request: InferenceRequest) -> FinishReason | None:
        return self._answer.ended(request)

    def continuation(self, request: InferenceRequest) -> InferenceRequest | None:
        return self._answer.continuation(request)

    def head(self) -> None:
        if self._trace is not None:
            self._trace.answered()

    def tokens(self, ids: Sequence[int], log_probs: Sequence[float] | None) -> None:
        if self._open():
            self._answer.tokens(ids, log_probs)

    def text(self, delta: str, tokens: int | None = None) -> None:
        if self._open():
            self._answer.text(delta, tokens)

    def scores(self, scores: Sequence[TokenScore]) -> None:
        if self._open():
            self._answer.scores(scores)

    def vectors(self, vectors: Sequence[bytes]) -> None:
        if self._open():
            self._answer.vectors(vectors)

    def data(self, data: bytes) -> None:
        if self._open():
            self._answer.data(data)

    def delta(self, delta: Delta) -> None:
        if self._open():
            self._answer.delta(delta)

    def flush(self) -> None:
        if self.is_open:  # who has kept this method from before then still flushes
            self._answer.flush()

    def end(self, reason: FinishReason | None, usage: Usage, stop: str | None = None) -> None:
        if self._open():
            self._answer.end(reason, usage, stop)

    def lost(self, error: InferenceError) -> None:
        if not self.is_shut:
            self._settle(error)

    def _chunk(self, framed: bytes) -> None:
        if self._open():
            chunk: Callable[[bytes], None] = self._answer.chunk  # type: ignore[attr-defined]
            chunk(framed)

    def _open(self) -> bool:
        """Whether a push may pass."""
        if self.is_open:
            return True
        if self.is_shut or self._trace is None or self._outcome is None:
            return False
        self.is_open = True
        self._opens(self)
        self._trace.first_token()
        self._answer.attempt_begins(self._trace, self._outcome)
        if self._call is not None:
            self._answer.attempt_runs(self._call)
        for name in _PUSHES:
            push: Any = getattr(self._answer, name, None)
            if push is not None:
                setattr(self, name, push)
        return True

    def _settle(self, outcome: Outcome) -> None:
        if self._outcome is not None and not self._outcome.done():
            self._outcome.set_result(outcome)


class Race:
    """One request's first attempt, and the second one should there be a reason for it."""

    def __init__(self, answer: Answer, run: Run, told: Told, failed: set[str]) -> None:
        """`run` makes an attempt; `told` learns how those ended whose outcome is not returned."""
        self._answer = answer
        self._run = run
        self._told = told
        self._failed = failed
        self._gates: list[Gate] = []
        self._hedge: tuple[Endpoint, asyncio.Task[Outcome]] | None = None
        self._first_failed = False

    @property
    def may_hedge(self) -> bool:
        """The first attempt still waits alone."""
        return self._hedge is None and len(self._gates) == 1 and not self._gates[0].is_open

    def hedge(self, endpoint: Endpoint) -> None:
        """Ask `endpoint`, too."""
        task = asyncio.get_running_loop().create_task(self._attempt(endpoint))
        self._hedge = endpoint, task
        task.add_done_callback(lambda _: self._hedge_failed(endpoint, task))

    async def begin(self, endpoint: Endpoint) -> tuple[Endpoint, Outcome]:
        """Run to one outcome, and say whose it is. When both fail, the later failure tells."""
        try:
            outcome = await self._attempt(endpoint)
            if self._hedge is None or not isinstance(outcome, InferenceError) or self._gates[0].is_open:
                return endpoint, outcome
            second, task = self._hedge
            if not isinstance(outcome, OvertakenError) and _failed(task):
                return endpoint, outcome
            self._told(endpoint, outcome.outcome)
            self._failed.add(endpoint.name)
            self._first_failed = True
            return second, await task
        finally:
            await self._close()

    async def _attempt(self, endpoint: Endpoint) -> Outcome:
        gate = Gate(self._answer, self._opened)
        self._gates.append(gate)
        return await self._run(endpoint, gate)

    def _opened(self, winner: Gate) -> None:
        for gate in self._gates:
            if gate is not winner:
                gate.shut()

    def _hedge_failed(self, endpoint: Endpoint, task: asyncio.Task[Outcome]) -> None:
        """While the first attempt goes on, the hedge's end is told here."""
        if self._first_failed or task.cancelled() or task.exception() is not None:
            return
        outcome = task.result()
        if isinstance(outcome, InferenceError):
            self._told(endpoint, outcome.outcome)
            if not isinstance(outcome, OvertakenError):
                self._failed.add(endpoint.name)

    async def _close(self) -> None:
        if self._hedge is not None and not self._hedge[1].done():
            self._hedge[1].cancel()
            await asyncio.wait([self._hedge[1]])


def _failed(task: asyncio.Task[Outcome]) -> bool:
    """It is over, and brought nothing."""
    if not task.done():
        return False
    return task.cancelled() or task.exception() is not None or isinstance(task.result(), InferenceError)
