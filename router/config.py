"""Settings of routing."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class EmbeddingBatches(BaseModel):
    """How the inputs of embedding requests are joined into request batches."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_inputs: Annotated[int, Field(ge=1, le=2048)] = 64
    """Inputs in one request batch; fewer where the server's `max_batch_size` is smaller."""
    max_tokens: Annotated[int, Field(ge=1)] = 16_384
    """Tokens in one request batch, padding included; a longer input goes alone."""
    calls_per_endpoint: Annotated[int, Field(ge=1)] = 2
    """Request batches under way at one endpoint; what comes meanwhile waits and is joined. With 2, a server
    has the next one when it is done with the last."""


class RouterConfig(BaseModel):
    """How endpoints are picked and failures handled."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_attempts: Annotated[int, Field(ge=1, le=10)] = 3
    """Endpoints tried for one request before its first token, and again after each continued stream."""
    breaker_failures: Annotated[int, Field(ge=1)] = 3
    """Failures of an endpoint in a row that open its breaker."""
    breaker_cooldown_s: Annotated[float, Field(gt=0)] = 2.0
    """How long an open breaker keeps requests away before one is let through as a probe."""
    no_endpoint_timeout_s: Annotated[float, Field(ge=0)] = 5.0
    """How long a request waits for an endpoint while its model has none; then 503 `no_endpoints`."""
    expected_output_tokens: Annotated[int, Field(ge=1)] = 128
    """What an answer is assumed to cost in tokens when the client sets no limit."""
    cache_tokens: Annotated[int, Field(ge=1)] = 2_000_000
    """Tokens that an engine's KV cache is taken to hold, until what it reports as reused says: less."""
    cache_ttl_s: Annotated[float, Field(gt=0)] = 3600.0
    """How long a prompt is believed to stay in an engine's cache without being used."""
    continue_streams: bool = True
    """Go on with a broken token-id stream on another endpoint."""
    embeddings: EmbeddingBatches = Field(default_factory=EmbeddingBatches)
