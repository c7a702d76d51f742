"""Entry: one request to a model that is open, and what its finish needs to know."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any, Literal

from msgspec import Struct, field

from gateway.api.errors import ApiError
from gateway.api.requests import ApiRequest
from gateway.streaming.choices import Choice
from gateway.streaming.client import PushResponse
from inference.request import Usage
from router.attempts import Finished
from router.profiles import Wish
from telemetry.request_trace import RequestTrace
from tenancy.keys import Identity

Kind = Literal["chat", "completion", "embedding"]
CHAT_PATH = "/v1/chat/completions"
COMPLETION_PATH = "/v1/completions"
EMBEDDING_PATH = "/v1/embeddings"
PATHS: Mapping[Kind, str] = {"chat": CHAT_PATH, "completion": COMPLETION_PATH, "embedding": EMBEDDING_PATH}


class Entry(Struct, eq=False):
    """Filled in step by step; `Accounts.finished` reads it once."""

    task: asyncio.Task[Any]
    trace: RequestTrace
    request_id: str
    kind: Kind
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
    api: ApiRequest | None = None
    wish: Wish | None = None
    choices: Sequence[Choice] = ()
    finished: Sequence[Finished] = ()
    usage: Usage = field(default_factory=Usage)

    @property
    def first_token_s(self) -> float | None:
        """Monotonic time of the first token of any choice."""
        if len(self.choices) == 1:
            return self.choices[0].first_token_s
        times = [choice.first_token_s for choice in self.choices if choice.first_token_s is not None]
        return min(times, default=None)
