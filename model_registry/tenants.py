"""Tenants: who is served, by which terms, and by which keys they are known. All are immutable values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, StringConstraints

from model_registry.entities import Entity, LabelName, Name, ProfileName

Priority = Literal["critical", "standard", "sheddable"]
"""Who goes first when there is too little for all, and who is let go first."""
KvIsolation = Literal["shared", "tenant"]
FallbackCause = Literal[
    "no_endpoints",
    "no_room",
    "queue_full",
    "queue_timeout",
    "predicted_late",
    "attempts_exhausted",
    "server_busy",
    "server_timeout",
    "context_length",
]
"""Why a request gets no answer of the model it asked for; as in the error's `code`."""


class Fallback(Entity):
    """Another model answers, should the one that was asked for not be able to."""

    causes: Annotated[tuple[FallbackCause, ...], Field(min_length=1)]
    to: Annotated[
        str,
        StringConstraints(pattern=r"^\S{1,384}$"),
        Field(description="a model as clients name it: name, alias or model+adapter, and :profile if wanted"),
    ]
    """An upstream is a model whose deployment is `openai-http`."""
    models: tuple[str, ...] | None = None
    """Requests for these models only, by their own names; None: for any."""
    after_holding: bool = False
    """Where the model is being brought up, requests are held first, and this one answers only when that is
    refused. False: it answers at once if it is up."""


class Terms(Entity):
    """What tenants are served by. None: not said here; where nobody says it, the default holds."""

    allowed_models: tuple[str, ...] | None = None
    """Model names, which include their aliases and their adapters unless those are `restricted`; single
    aliases; `model+adapter` for single adapters; `*` for all. Default: all."""
    allowed_profiles: tuple[ProfileName, ...] | None = None
    """Default: all."""
    default_profile: ProfileName | None = None
    """Where a request names none. Default: the model's."""
    weight: Annotated[float, Field(gt=0, le=1000)] | None = None
    """Share beside other tenants while there is too little for all. Default: 1."""
    priority: Priority | None = None
    """Default: standard."""
    deadline_s: Annotated[float, Field(gt=0, le=86_400)] | None = None
    """The longest a request may take, within `gateway.request_timeout_s`. Default: that."""
    concurrency: Annotated[int, Field(ge=1)] | None = None
    """Requests at once, over all gateways. Default: no limit."""
    requests_per_min: Annotated[int, Field(ge=1)] | None = None
    """Requests begun within any 60 s. Default: no limit."""
    tokens_per_min: Annotated[int, Field(ge=1)] | None = None
    """Tokens of prompts and answers of the requests begun within any 60 s. Default: no limit."""
    selectors: Mapping[LabelName, tuple[str, ...]] | None = None
    """By label of an endpoint's deployment, the values that will do; `deployment` and `endpoint` stand for
    their names. Default: any endpoint."""
    fallbacks: tuple[Fallback, ...] | None = None
    """Tried in this order. Default: none."""
    kv_isolation: KvIsolation | None = None
    """`tenant`: what this tenant's prompts left in KV caches is counted on for its own requests alone.
    Default: shared."""


class Policy(Terms):
    """Terms that tenants refer to by name."""

    name: Name
    description: str | None = None


class Tenant(Terms):
    """Who is authenticated, limited, scheduled and billed. Terms of its own win over its policy's."""

    name: Name
    policy: Name | None = None
    disabled: bool = False


class ApiKey(Entity):
    """A key of a tenant, hashed at rest. It may do what its tenant may, or less."""

    name: Name
    tenant: Name
    sha256: Annotated[
        str,
        StringConstraints(pattern=r"^[0-9a-f]{64}$"),
        Field(description="the SHA-256 of the key, 64 digits of 0-9 a-f"),
    ]
    models: tuple[str, ...] | None = None
    """As a policy's `allowed_models`; None: those of its tenant."""
    profiles: tuple[ProfileName, ...] | None = None
    """None: those of its tenant."""
    expires_at: AwareDatetime | None = None
    """From then on it lets nobody in."""
    admin: bool = False
    """May use the admin API."""
    disabled: bool = False
    """Lets nobody in until it is enabled again."""
    revoked: bool = False
    """Lets nobody in ever again: it cannot be taken back."""
