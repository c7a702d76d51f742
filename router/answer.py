"""Answer: what all attempts of one request push to, and how an attempt may end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from inference.errors import InferenceError
from inference.request import InferenceRequest, Usage
from inference.sink import Call, FinishReason, Sink
from telemetry.request_trace import AttemptTrace

Outcome = tuple[FinishReason | None, Usage] | InferenceError
Start = Callable[[InferenceRequest, Sink], Call]


class Answer(Sink, Protocol):
    """It lives longer than any of the attempts."""

    @property
    def started(self) -> bool:
        """Something of the answer was pushed: another attempt may not begin anew."""

    def attempt_begins(self, trace: AttemptTrace, outcome: asyncio.Future[Outcome]) -> None:
        """A new attempt pushes from now on; `outcome` takes what its `end` or `lost` says first."""

    def attempt_runs(self, call: Call) -> None:
        """The attempt's call, to pause, resume or cancel it."""

    def ended(self, request: InferenceRequest) -> FinishReason | None:
        """Why the answer is whole although its end was lost; None: something is missing."""

    def continuation(self, request: InferenceRequest) -> InferenceRequest | None:
        """The rest of a broken answer as a new request; None where it cannot be continued.

        It may be the whole once more, the answer passing over what it has: a copy of
        `request` then.
        """
