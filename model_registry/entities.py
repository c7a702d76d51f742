"""The nouns of the registry: what clients name, what should run, and what runs.

All are immutable values. `Model`, `Adapter`, `Deployment`, `Tenant` and `ApiKey` are declared by operators
(YAML manifests, the admin API); `Endpoint` is registered by the controller and lives only as long as it is
renewed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError


def _addressable(url: str) -> str:
    """`url`, if host and port can be told of it: everything that uses it does so without a second check."""
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise PydanticCustomError("address", "must have a host, and a port from 1 to 65535 if any")
    return url


Name = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._/-]{0,126}[A-Za-z0-9])?$"),
    Field(description="1-128 of A-Z a-z 0-9 . _ / -, beginning and ending with a letter or digit"),
]
Profile = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,30}$"),
    Field(description="a lower-case word: latency, balanced, throughput, or one of your own"),
]
HttpUrl = Annotated[
    str,
    StringConstraints(pattern=r"^https?://[^\s/]+[^\s]*$"),
    AfterValidator(_addressable),
    Field(description="a URL that begins with http:// or https://"),
]
HostPort = Annotated[
    str,
    StringConstraints(pattern=r"^(\[[0-9A-Fa-f:.]+\]|[^\s/:\[\]]+):[0-9]{1,5}$"),
    Field(description="host:port, without a scheme"),
]
LaneName = Literal[
    "tensorrt_llm",
    "ensemble",
    "tensorrt_llm_bls",
    "llmapi",
    "vllm",
    "encoder",
    "text_encoder",
    "openai-http",
]
Modality = Literal["text", "embedding"]
ToolParserName = Literal["llama3_json", "hermes", "mistral", "pythonic"]
ReasoningParserName = Literal["deepseek_r1", "qwen3"]
EndpointState = Literal["starting", "ready", "draining", "unhealthy", "gone"]


class Entity(BaseModel):
    """Base of everything stored: immutable, and strict about fields it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Model(Entity):
    """What a client names. No weights, no process."""

    name: Name
    context_length: Annotated[int, Field(gt=0)]
    """Prompt and answer together, in tokens; of an embedding model, one input."""
    modality: Modality = "text"
    """`text`: chat and completions. `embedding`: `/v1/embeddings`."""
    dimensions: Annotated[int, Field(gt=0)] | None = None
    """Length of an embedding model's vectors; None: what its server's metadata says, if it does."""
    shortens: bool = False
    """Its vectors stay useful when cut (Matryoshka training): clients may ask for fewer `dimensions`."""
    tokenizer: str | None = None
    """Folder with `tokenizer.json`, `tekken.json` or `tokenizer.model`, and where present
    `tokenizer_config.json`; needed by every lane but `openai-http`."""
    chat_template: str | None = None
    """Jinja text that replaces the tokenizer's own chat template."""
    tool_parser: ToolParserName | None = None
    """How this model writes tool calls, by vLLM's names; None: Triton lanes refuse tools."""
    reasoning_parser: ReasoningParserName | None = None
    """How this model marks its thoughts, by vLLM's names; None: they stay in the answer."""
    aliases: tuple[Name, ...] = ()
    default_profile: Profile = "balanced"
    owned_by: str = "enginehouse"
    description: str | None = None
    created: Annotated[int, Field(ge=0)] = 0
    """Unix seconds, shown in `/v1/models`; set by the registry when the model is first stored."""


class Adapter(Entity):
    """LoRA weights on top of a model. Clients name it `model+adapter`, or by an alias.

    Its own name is unique among all adapters, whatever their models.
    """

    name: Name
    model: Name
    """The model it was trained for: its base."""
    path: str | None = None
    """Folder with `adapter_config.json` and `adapter_model.safetensors`, as PEFT writes them, readable by
    every gateway. Needed where the gateway sends the weights: by every Triton lane but `llmapi`."""
    server_path: str | None = None
    """That folder as a server sees it that reads adapters itself (`llmapi`). Default: `path`."""
    lora_name: str | None = None
    """What a server calls it that knows adapters by name (`openai-http`). Default: the adapter's name."""
    aliases: tuple[Name, ...] = ()
    restricted: bool = False
    """A tenant that may use the base may not use it yet: its `allowed_models` must name `model+adapter`."""
    description: str | None = None
    created: Annotated[int, Field(ge=0)] = 0
    """Unix seconds, shown in `/v1/models`; set by the registry when the adapter is first stored."""

    @property
    def full_name(self) -> str:
        """`model+adapter`; a `+` can be part of no other name."""
        return f"{self.model}+{self.name}"


class ServerRef(Entity):
    """Where a model server listens."""

    http: HttpUrl
    grpc: HostPort | None = None
    metrics: HttpUrl | None = None
    api_key_env: str | None = None
    """Environment variable of the gateway with the bearer token of an OpenAI-HTTP upstream."""


class Deployment(Entity):
    """Desired state: this model, on these servers, under this profile."""

    name: Name
    model: Name
    profile: Profile = "balanced"
    lane: LaneName | Literal["auto"] = "auto"
    """`auto`: recognised by introspection; the bare `tensorrt_llm` is preferred wherever present."""
    target: str | None = None
    """Name on the server (Triton model, or upstream model id). Default: the deployment's model name."""
    servers: Annotated[tuple[ServerRef, ...], Field(min_length=1)]
    max_concurrency: Annotated[int, Field(gt=0)] | None = None
    """Requests in flight per endpoint; default: what the engine says of itself."""
    tokens_per_block: Annotated[int, Field(gt=0)] | None = None
    """Tokens of one KV-cache block, to tell cached tokens by; default: what the engine says of itself, which
    `llmapi` models do not."""
    transport: Literal["http", "grpc"] = "http"
    """How token streams of Triton lanes are read."""


class Endpoint(Entity):
    """The address of a ready replica; what the router picks."""

    name: str
    """`<deployment>@<host>:<port>`."""
    deployment: Name
    model: Name
    profile: Profile
    lane: LaneName
    target: str
    """What is called: the deployment's target, or the bare model that introspection found behind it."""
    asked_target: str | None = None
    """The deployment's target, as it was when this was registered."""
    http: HttpUrl
    grpc: HostPort | None = None
    metrics: HttpUrl | None = None
    api_key_env: str | None = None
    transport: Literal["http", "grpc"] = "http"
    max_concurrency: Annotated[int, Field(gt=0)] = 64
    server_schema: Mapping[str, Any] = Field(default_factory=dict)
    """What introspection recognised (`inference.schema.Schema.as_dict`)."""
    state: EndpointState = "starting"
    reason: str | None = None
    """Why it is not ready."""


class Tenant(Entity):
    """Who is authenticated, limited, scheduled and billed."""

    name: Name
    weight: Annotated[float, Field(gt=0, le=1000)] = 1.0
    allowed_models: tuple[str, ...] | None = None
    """Model names, which include their adapters unless those are `restricted`, and `model+adapter` for single
    adapters; None: all."""
    concurrency: Annotated[int, Field(ge=1)] | None = None
    """Requests at once, over all gateways; None: no limit."""
    requests_per_min: Annotated[int, Field(ge=1)] | None = None
    """Requests begun within any 60 s."""
    tokens_per_min: Annotated[int, Field(ge=1)] | None = None
    """Tokens of prompts and answers of the requests begun within any 60 s."""
    disabled: bool = False


class ApiKey(Entity):
    """A key of a tenant, hashed at rest."""

    name: Name
    tenant: Name
    sha256: Annotated[
        str,
        StringConstraints(pattern=r"^[0-9a-f]{64}$"),
        Field(description="the SHA-256 of the key, 64 digits of 0-9 a-f"),
    ]
    admin: bool = False
    """May use the admin API."""
    disabled: bool = False
