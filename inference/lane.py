"""Lane: how one recognised schema is spoken to.

A lane is stateless and shared by every request of an endpoint; a reader holds what one answer needs. The
same lane serves both transports of Triton: HTTP `generate_stream` carries `tensors` as flat JSON and gRPC
carries them typed by the introspected inputs.
"""

from __future__ import annotations

from typing import Any, Protocol

from inference.request import InferenceRequest
from inference.sink import Sink


class TritonReader(Protocol):
    """Turns the responses of one Triton request into calls of a sink.

    One that has a method `payload(json)` is given a response that is not read yet, in place of `event`.
    """

    def event(self, outputs: dict[str, Any]) -> None:
        """One response: output name -> scalar or flat list (as `generate_stream` unwraps them).

        Raises ProtocolError when it is not of the schema.
        """

    def finish(self) -> None:
        """The server ended the request cleanly: calls `sink.end`, or `sink.lost` if that was too early."""


class TritonLane(Protocol):
    """One Triton schema."""

    name: str
    takes_stop: bool
    """A second request of the same id, with `stop`, ends the first one (contract sheet 1.7)."""

    def check(self, request: InferenceRequest) -> None:
        """Raise UnsupportedFeatureError for what the schema cannot carry; nothing is silently ignored."""

    def tensors(self, request: InferenceRequest) -> dict[str, Any]:
        """Inputs by name: scalars, or flat lists for one-dimensional tensors. Only declared inputs."""

    def reader(self, request: InferenceRequest, sink: Sink) -> TritonReader:
        """A reader for one call."""
