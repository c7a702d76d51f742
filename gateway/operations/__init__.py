"""Operations: the paths of the API that ask a model. Each generating one reads its own body and writes its
own answers and errors.

Everything in between (keys, routing, attempts, streaming, accounts) is the same for all of them and knows
them only by these protocols.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from gateway.api.answers import Choice, LogProb
from gateway.api.errors import ErrorShape
from gateway.api.finish import FinishReason
from gateway.api.json_body import BodyLimits
from gateway.api.requests import ApiRequest
from inference.request import Usage


class Head(NamedTuple):
    """What every answer to one request says of itself."""

    request_id: str
    created: int
    """Unix seconds."""
    api: ApiRequest
    service_tier: str | None
    """The tier that served, in OpenAI's words, where the client named one."""
    prompt_tokens: int | None = None
    """None where only an upstream can count them."""


class Events(Protocol):
    """Encodes the events of one streamed answer; `index` is the choice's."""

    def opening(self, index: int) -> bytes:
        """What precedes a choice's first part."""

    def delta(self, index: int, text: str, logprobs: Sequence[LogProb] | None = None) -> bytes:
        """New text of a choice, with the log probabilities of the tokens it is made of."""

    def reasoning(self, index: int, text: str) -> bytes:
        """New text of what the model thinks."""

    def tool_call(self, index: int, call: int, id: str, name: str) -> bytes:  # noqa: A002 - OpenAI's own word
        """A tool call begins."""

    def tool_arguments(self, index: int, call: int, fragment: str) -> bytes:
        """The next piece of a tool call's arguments."""

    def finish(self, index: int, reason: FinishReason, stop: str | None = None) -> bytes:
        """The end of a choice, and the stop string that ended it, where it is known."""

    def end(self, usage: Usage) -> bytes:
        """What follows once every choice has ended."""

    def error(self, shape: ErrorShape) -> bytes:
        """The event that ends a broken stream; nothing may follow it."""


class Operation(Protocol):
    """One path, as accounts and errors know it."""

    name: str
    """`gen_ai.operation.name`."""
    path: str
    id_header: str
    """The header by which the API's clients find the request's id."""

    def error(self, shape: ErrorShape) -> bytes:
        """The body of an error answer."""


class GeneratingOperation(Operation, Protocol):
    """One generating path."""

    upstream_path: str
    """Path at an OpenAI-HTTP upstream; where it is another API's, its answers are read, not relayed."""

    def parse(self, body: bytes, limits: BodyLimits) -> ApiRequest:
        """Raises ApiError 400 or 413, nothing else."""

    def events(self, head: Head, choices: int) -> Events:
        """The encoder of one streamed answer."""

    def answer(self, head: Head, choices: Sequence[Choice], usage: Usage) -> bytes:
        """The body of an answer that is not streamed."""
