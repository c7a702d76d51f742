"""Settings of the HTTP front."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from gateway.api.json_body import BodyLimits


class GatewayConfig(BaseModel):
    """What one gateway accepts, for how long it serves, and how it stops."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    """0: any free port."""
    workers: Annotated[int, Field(ge=1, le=256)] = 1
    """Processes that share the port."""
    limits: BodyLimits = Field(default_factory=BodyLimits)
    max_header_bytes: Annotated[int, Field(ge=1024)] = 16 * 1024
    default_max_tokens: Annotated[int, Field(ge=1)] = 1024
    """Length of a chat answer when the client sets no limit; never beyond the model's context."""
    request_timeout_s: Annotated[float, Field(gt=0)] = 600.0
    """The longest a request may take from its last byte in to its last byte out."""
    body_timeout_s: Annotated[float, Field(gt=0)] = 30.0
    """How long a client may take to send a request's body."""
    explain_header: bool = True
    """Answer `x-enginehouse-explain: 1` with `x-enginehouse-decision`, which names endpoints to clients."""
    connect_timeout_s: Annotated[float, Field(gt=0)] = 2.0
    first_byte_timeout_s: Annotated[float, Field(gt=0)] = 120.0
    """How long a model server may be silent before its answer begins."""
    idle_timeout_s: Annotated[float, Field(gt=0)] = 60.0
    """How long a model server may be silent within an answer."""
    drain_notice_s: Annotated[float, Field(gt=0)] | None = None
    """How long `/readyz` says 503 after SIGTERM before the port closes, for load balancers to see it."""
    drain_timeout_s: Annotated[float, Field(ge=0)] = 30.0
    """How long requests may go on after SIGTERM before they are cut."""
    keepalive_timeout_s: Annotated[float, Field(gt=0)] = 75.0
    adapter_cache_bytes: Annotated[int, Field(ge=0)] = 256 * 1024 * 1024
    """Weights of LoRA adapters that each worker keeps for engines that lack them; others are read again."""
    write_buffer_high_bytes: Annotated[int, Field(ge=4096)] = 256 * 1024
    """Unsent bytes of a slow client at which the model server is no longer read from."""
