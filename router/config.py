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


class OutlierConfig(BaseModel):
    """When an endpoint is left alone for being far worse than its peers, and for how long."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    slow_factor: Annotated[float, Field(gt=1)] = 4.0
    """Times its peers' median seconds to a first token, per token of work, at which an endpoint is slow."""
    sure_factor: Annotated[float, Field(gt=1)] = 8.0
    """The same at which two first tokens in a row are enough to call an endpoint slow. Where requests are
    few and policies avoid who keeps one waiting, three late ones take three times as long as the slowness."""
    min_excess_s: Annotated[float, Field(ge=0)] = 0.2
    """Seconds by which its first tokens must be late, too: a factor of very little is no reason."""
    error_rate: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of failed attempts at which an endpoint fails too often, if it is also well above its peers'."""
    max_share: Annotated[float, Field(ge=0, le=1)] = 0.34
    """Share of a group of endpoints that may be left alone at once: always one, never all. 0: off."""
    base_s: Annotated[float, Field(gt=0)] = 5.0
    """How long an endpoint is left alone at first; twice as long each time after."""
    max_s: Annotated[float, Field(gt=0)] = 300.0


class RetryConfig(BaseModel):
    """How many retries before a first token one model's requests may make together."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ratio: Annotated[float, Field(ge=0)] = 0.2
    """Retries per recent request."""
    floor: Annotated[float, Field(ge=0)] = 100.0
    """Retries within `window_s` that are always allowed: what an endpoint had not begun when it ended."""
    window_s: Annotated[float, Field(gt=0)] = 10.0
    """What is recent: older requests and retries fade with this time constant."""


class HedgeConfig(BaseModel):
    """When a second endpoint is asked because the first one has stalled; profiles switch it on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stall_factor: Annotated[float, Field(gt=1)] = 3.0
    """Times its estimate after which a missing first token is a stall."""
    min_wait_s: Annotated[float, Field(gt=0)] = 0.25
    """Nothing is a stall sooner."""
    share: Annotated[float, Field(ge=0, le=1)] = 0.02
    """Hedged prompt tokens per prompt token dispatched."""
    max_credit_tokens: Annotated[int, Field(ge=0)] = 262_144
    """What is not used adds up to so much at most."""
    saturated_at: Annotated[float, Field(gt=0, le=1)] = 0.8
    """Share of the model's slots in use at which nothing is hedged."""


class HoldingConfig(BaseModel):
    """How many requests wait for a model that is not up and that the controller brings up, and how long."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_requests: Annotated[int, Field(ge=0)] = 256
    """Per model and gateway process; beyond it 503 `cold_queue_full`. 0: none is held."""
    max_tokens: Annotated[int, Field(ge=1)] = 2_000_000
    """The same in tokens of prompts and expected answers."""
    max_wait_s: Annotated[float, Field(gt=0)] | None = None
    """How long one is held; 503 `model_loading` at once where the model is not expected by then. None: as
    long as a request may take."""


class RouterConfig(BaseModel):
    """How endpoints are picked and failures handled."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_attempts: Annotated[int, Field(ge=1, le=10)] = 3
    """Endpoints tried for one request before its first token, and again after each continued stream."""
    breaker_failures: Annotated[int, Field(ge=1)] = 3
    """Failures of an endpoint in a row that open its breaker."""
    breaker_cooldown_s: Annotated[float, Field(gt=0)] = 2.0
    """How long an open breaker keeps requests away before probes are let through."""
    breaker_probes: Annotated[int, Field(ge=1)] = 3
    """Requests that a half-open breaker lets through at once."""
    breaker_successes: Annotated[int, Field(ge=1)] = 2
    """Probes that must go well before it closes."""
    explained_decisions: Annotated[int, Field(ge=0, le=100_000)] = 1024
    """Decisions that each worker keeps for `enginehouse explain`."""
    retries: RetryConfig = Field(default_factory=RetryConfig)
    outliers: OutlierConfig = Field(default_factory=OutlierConfig)
    hedging: HedgeConfig = Field(default_factory=HedgeConfig)
    no_endpoint_timeout_s: Annotated[float, Field(ge=0)] = 5.0
    """How long a request waits for an endpoint while its model has none; then 503 `no_endpoints`. Of a model
    that the controller brings up, `holding` says how long."""
    holding: HoldingConfig = Field(default_factory=HoldingConfig)
    expected_output_tokens: Annotated[int, Field(ge=1)] = 128
    """What an answer is assumed to cost in tokens when the client sets no limit."""
    cache_tokens: Annotated[int, Field(ge=1)] = 2_000_000
    """Tokens that an engine's KV cache is taken to hold, until what it reports as reused says: less."""
    cache_ttl_s: Annotated[float, Field(gt=0)] = 3600.0
    """How long a prompt is believed to stay in an engine's cache without being used."""
    kv_events_pause_s: Annotated[float, Field(gt=0, le=5)] = 0.25
    """Between two readings of a server that publishes KV events, by whichever worker reads it."""
    continue_streams: bool = True
    """Go on with a broken token-id stream on another endpoint."""
    embeddings: EmbeddingBatches = Field(default_factory=EmbeddingBatches)
