"""Entry: one request to a model that is open, and what its finish needs to know."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

from msgspec import Struct, field

from gateway.api.errors import ApiError
from gateway.api.requests import ApiRequest
from gateway.operations import Events, Operation
from gateway.shadow.watched import Watched
from gateway.streaming.choices import Choice
from gateway.streaming.client import PushResponse
from inference.request import NO_USAGE, Usage
from model_registry.entities import Endpoint
from model_registry.snapshot import Snapshot
from router.attempts import Finished
from router.profiles import Wish
from telemetry.request_trace import RequestTrace
from tenancy.keys import Identity
from tenancy.limits import Reservation


class Arrived(Struct, frozen=True, gc=False):
    """What a request brought, once it is known who asks."""

    identity: Identity
    snapshot: Snapshot
    """What there was when it came."""
    body: bytes
    profile: str | None
    """The profile that a header names."""


class Entry(Struct, eq=False):
    """Filled in step by step; `Accounts.finished` reads it once."""

    task: asyncio.Task[Any]
    trace: RequestTrace
    request_id: str
    operation: Operation
    response: PushResponse
    started_s: float = field(default_factory=monotonic)
    status: int = 200
    error_type: str | None = None
    routed: bool = False
    """An endpoint has been asked for."""
    cut: ApiError | None = None
    """The gateway itself ends it, with this error."""
    client_left: bool = False
    identity: Identity | None = None
    allowed_s: float | None = None
    """The longest it may take, where its tenant's policy says so."""
    spare: Callable[[Endpoint], bool] | None = None
    """Which endpoints have room for it, where it may use spare capacity only (`router.job.Job`)."""
    api: ApiRequest | None = None
    wish: Wish | None = None
    events: Events | None = None
    """Of an answer that is streamed."""
    choices: Sequence[Choice] = ()
    finished: Sequence[Finished] = ()
    usage: Usage = NO_USAGE
    reservation: Reservation | None = None
    """What it has taken of its tenant's limits."""
    watched: Watched | None = None
    """Set where a rollout of its model is under way."""
    has_stand_in: bool = False
    """A model that is up may answer at once should its own not be up."""
    cold: bool = False
    """It was held until an endpoint of its model was up."""

    def due_s(self, longest_s: float) -> float:
        """When it is cut, as `time.monotonic`; `longest_s`: what any request may take."""
        return self.started_s + (longest_s if self.allowed_s is None else min(longest_s, self.allowed_s))

    def was_held(self) -> None:
        """Its model was not up and is now: the client is told with the answer's head."""
        if not self.cold:
            self.cold = True
            self.response.add_headers(b"x-enginehouse-cold: 1\r\n")

    @property
    def first_token_s(self) -> float | None:
        """Monotonic time of the first token of any choice."""
        if len(self.choices) == 1:
            return self.choices[0].first_token_s
        times = [choice.first_token_s for choice in self.choices if choice.first_token_s is not None]
        return min(times, default=None)
