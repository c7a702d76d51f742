"""Watched: a request of a model whose rollout is under way, with what a copy of it needs."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct, field

from gateway.assembling import Assembling
from gateway.streaming.choices import StreamedChoice
from inference.request import EmbeddingInput, InferenceRequest
from model_registry.rolling import Rolling

_KEPT_BYTES = 1 << 20
"""Of a relayed answer; longer ones are not compared."""


class Watched(Struct, eq=False):
    """As the request was routed: a rollout that has moved on meanwhile does not count it elsewhere."""

    rolling: Rolling
    requests: Sequence[InferenceRequest]
    assembling: Assembling
    lanes: frozenset[str] | None
    inputs: Sequence[EmbeddingInput] = ()
    vectors: Sequence[bytes] = ()
    """What the client was answered, where it asked for embeddings."""
    relayed: list[bytes] = field(default_factory=list)
    """Bytes of a streamed OpenAI-HTTP answer."""
    size: int = 0

    def listen(self, choice: StreamedChoice) -> None:
        """Keep what is relayed through `choice`, which keeps nothing itself."""
        pass_on, chunk = choice.data, choice.chunk

        def also_data(data: bytes) -> None:
            self._keep(data)
            pass_on(data)

        def also_chunk(framed: bytes) -> None:
            self._keep(framed)
            chunk(framed)

        choice.data = also_data  # type: ignore[method-assign]
        choice.chunk = also_chunk  # type: ignore[method-assign]

    def _keep(self, read: bytes) -> None:
        self.size += len(read)
        if self.size <= _KEPT_BYTES:
            self.relayed.append(read)
