"""Probe: whether a server that says it is ready also answers, by the smallest request that its lane takes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from secrets import token_hex

from inference.client import ModelClients
from inference.errors import (
    AdapterError,
    InferenceError,
    PromptTooLongError,
    RequestRefusedError,
    ServerBusyError,
    UnsupportedFeatureError,
    UpstreamMisconfiguredError,
)
from inference.push_http import Timeouts
from inference.request import EmbeddingInput, InferenceRequest, Usage
from inference.sink import Call, Delta, FinishReason, TokenScore
from model_registry.entities import Endpoint

_ANSWERS = (
    RequestRefusedError,
    PromptTooLongError,
    UnsupportedFeatureError,
    ServerBusyError,
    UpstreamMisconfiguredError,
    AdapterError,
)
"""What only a server that works says: it does not want this request, or none now."""
_CONNECT_S = 2.0


async def probe_inference(endpoint: Endpoint, embeds: bool, within_s: float) -> str | None:
    """Ask for one token, or one vector, over a connection of its own; why that went wrong, None: it did not.

    After `within_s` the call is cancelled, at the engine, too. `embeds`: its model makes vectors.
    """
    clients = ModelClients(Timeouts(_CONNECT_S, within_s + 1.0, within_s + 1.0, within_s + 1.0))
    answer = _Answer()
    call: Call | None = None
    try:
        async with asyncio.timeout(within_s):
            call = clients.of(endpoint).start(_smallest(endpoint, embeds), answer)
            await answer.came
    except TimeoutError:
        return f"it says that it is ready, and answered no inference within {within_s:.3g} s"
    except _ANSWERS:
        return None
    except InferenceError as error:
        return f"it says that it is ready, and an inference failed: {error.outcome}: {error}"
    finally:
        if call is not None:
            call.cancel()
        await clients.close()
    return None


def _smallest(endpoint: Endpoint, embeds: bool) -> InferenceRequest:
    request = InferenceRequest(
        id=f"probe-{token_hex(4)}", model=endpoint.model, stream=False, max_tokens=1, relay=False
    )
    if endpoint.lane == "openai-http":
        if embeds:
            request.path = "/v1/embeddings"
            request.body = {"model": endpoint.target, "input": "."}
        else:
            request.body = {
                "model": endpoint.target,
                "messages": [{"role": "user", "content": "."}],
                "max_tokens": 1,
            }
        request.relay = True
    elif embeds:
        request.inputs, request.max_tokens = [EmbeddingInput([1], ".")], 0
    else:
        request.prompt_ids, request.prompt_text = [1], "."
    return request


class _Answer:
    """Resolves `came` with the first thing that comes of the answer."""

    def __init__(self) -> None:
        self.came: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def head(self) -> None: ...

    def tokens(self, ids: Sequence[int], log_probs: Sequence[float] | None) -> None:
        del log_probs
        if ids:
            self._came()

    def text(self, delta: str, tokens: int | None = None) -> None:
        del delta, tokens

    def scores(self, scores: Sequence[TokenScore]) -> None:
        del scores

    def vectors(self, vectors: Sequence[bytes]) -> None:
        del vectors
        self._came()

    def data(self, data: bytes) -> None:
        del data
        self._came()

    def delta(self, delta: Delta) -> None:
        del delta

    def flush(self) -> None: ...

    def end(self, reason: FinishReason | None, usage: Usage, stop: str | None = None) -> None:
        del reason, usage, stop
        self._came()

    def lost(self, error: InferenceError) -> None:
        if not self.came.done():
            self.came.set_exception(error)

    def _came(self) -> None:
        if not self.came.done():
            self.came.set_result(None)
