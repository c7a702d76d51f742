"""The nouns of the registry but tenants: what clients name, what should run, and what runs.

All are immutable values. `Endpoint` is registered by the controller and lives only as long as it is renewed;
all others are declared by operators (YAML manifests, the admin API).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from model_registry.cards import GoodputCard
from model_registry.knobs import BUILT_IN, Knobs


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
ProfileName = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,30}$"),
    Field(description="a lower-case word: latency, balanced, throughput, or one of your own"),
]
LabelName = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,62}$"),
    Field(description="a lower-case word: gpu_class, region, or one of your own"),
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
KvEvents = Literal["trtllm-serve"]
"""Kinds of servers that publish what enters and leaves their KV caches."""
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
    default_profile: ProfileName = "balanced"
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


class Scaling(Entity):
    """How many replicas of a deployment there should be, and where; the controller sees to it."""

    pool: Name
    min_replicas: Annotated[int, Field(ge=0, le=10_000)] = 1
    """0: the last one goes when nobody has asked for `idle_s`; a request for it is held until it is back."""
    max_replicas: Annotated[int, Field(ge=1, le=10_000)] = 1
    ttft_s: Annotated[float, Field(gt=0, le=600)] | None = None
    """Target of the time to the first token. Default: that of the card's goodput."""
    itl_s: Annotated[float, Field(gt=0, le=60)] | None = None
    """Target of the time between tokens. Default: that of the card's goodput."""
    idle_s: Annotated[float, Field(ge=1, le=604_800)] = 600.0
    cold_start_s: Annotated[float, Field(gt=0, le=3600)] = 60.0
    """From the decision to a ready replica, until that has been seen."""
    memory_mib: Annotated[int, Field(gt=0, le=1 << 24)] | None = None
    """Of the server's GPU memory, until that has been measured. Needed where servers have `memory_mib`."""
    pinned: bool = False
    """Never leaves its server to make room for another model."""
    lends: bool = True
    """It and deployments of the same model under other profiles may serve each other's requests."""
    load: Mapping[str, str] = Field(default_factory=dict)
    """Parameters of Triton's load call, such as `config`."""

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> Self:
        if self.min_replicas > self.max_replicas:
            raise PydanticCustomError("scaling", "min_replicas must not be above max_replicas")
        return self


MAX_SCALED_NAME = 121
"""So that `<deployment>.<six digits>` is a name, too."""


class Deployment(Entity):
    """Desired state: this model, on these servers or as many as it needs, under this profile."""

    name: Name
    model: Name
    profile: ProfileName = "balanced"
    lane: LaneName | Literal["auto"] = "auto"
    """`auto`: recognised by introspection; the bare `tensorrt_llm` is preferred wherever present."""
    target: str | None = None
    """Name on the server (Triton model, or upstream model id). Default: the deployment's model name."""
    engine: Name | None = None
    """What its servers have loaded; it gets requests once that has passed preflight. None: not built here,
    and taken on trust."""
    scaling: Scaling | None = None
    """None: exactly the `servers`, whatever the load."""
    servers: Annotated[tuple[ServerRef, ...], Field(validate_default=True)] = ()
    """Where it is loaded already, one replica on each. Empty where `scaling` says how it comes to be."""
    max_concurrency: Annotated[int, Field(gt=0)] | None = None
    """Requests in flight per endpoint; default: what the engine says of itself."""
    tokens_per_block: Annotated[int, Field(gt=0)] | None = None
    """Tokens of one KV-cache block, to tell cached tokens by; default: what the engine says of itself, which
    `llmapi` models do not."""
    kv_events: KvEvents | None = None
    """How its servers publish KV events, by which gateways know what is in their caches; None: they do not.
    `trtllm-serve`: by `POST /kv_cache_events`, with `kv_cache_config.event_buffer_max_size` above 0. The
    model needs a `tokenizer`, and nobody else may ask the server for them."""
    transport: Literal["http", "grpc"] = "http"
    """How token streams of Triton lanes are read."""
    labels: Mapping[LabelName, str] = Field(default_factory=dict)
    """What selectors of tenants' policies look at, such as `gpu_class` and `region`."""
    weight: Annotated[float, Field(ge=0, le=1000)] = 1.0
    """Share of the traffic it is meant to take beside others of its model and profile, by the policy
    `weighted`. 0: it gets no requests, whatever the policy, but what a rollout gives it."""
    card: GoodputCard | None = None
    """What one of its replicas can do; forecasts begin with it. None: what a common engine does."""

    @field_validator("servers")
    @classmethod
    def _is_somewhere(cls, servers: tuple[ServerRef, ...], info: ValidationInfo) -> tuple[ServerRef, ...]:
        if "scaling" in info.data and bool(servers) == (info.data["scaling"] is not None):
            raise PydanticCustomError(
                "either", "give either servers, where it is loaded already, or scaling, which names a pool"
            )
        return servers

    @field_validator("scaling")
    @classmethod
    def _has_room_for_replicas_names(cls, scaling: Scaling | None, info: ValidationInfo) -> Scaling | None:
        if scaling is not None and len(info.data.get("name", "")) > MAX_SCALED_NAME:
            raise PydanticCustomError(
                "name",
                f"replicas are named after their deployment: name it in {MAX_SCALED_NAME} characters at most",
            )
        return scaling

    @field_validator("kv_events")
    @classmethod
    def _only_openai_http_publishes(cls, kv_events: KvEvents | None, info: ValidationInfo) -> KvEvents | None:
        lane = info.data.get("lane", "auto")
        if kv_events is not None and lane not in {"auto", "openai-http"}:
            raise PydanticCustomError(
                "kv_events",
                "Triton lanes publish no KV events: leave it out, or say lane: openai-http for trtllm-serve",
            )
        return kv_events


class Endpoint(Entity):
    """The address of a ready replica; what the router picks."""

    name: str
    """`<deployment>@<host>:<port>`."""
    deployment: Name
    model: Name
    profile: ProfileName
    lane: LaneName
    target: str
    """What is called: the deployment's target, or the bare model that introspection found behind it."""
    asked_target: str | None = None
    """The deployment's target, as it was when this was registered."""
    http: HttpUrl
    grpc: HostPort | None = None
    metrics: HttpUrl | None = None
    api_key_env: str | None = None
    kv_events: KvEvents | None = None
    """Its deployment's."""
    transport: Literal["http", "grpc"] = "http"
    max_concurrency: Annotated[int, Field(gt=0)] = 64
    server_schema: Mapping[str, Any] = Field(default_factory=dict)
    """What introspection recognised (`inference.schema.Schema.as_dict`)."""
    labels: Mapping[LabelName, str] = Field(default_factory=dict)
    """Its deployment's."""
    weight: Annotated[float, Field(ge=0, le=1000)] = 1.0
    """Its deployment's."""
    card: GoodputCard | None = None
    """Its deployment's."""
    state: EndpointState = "starting"
    reason: str | None = None
    """Why it is not ready."""


class Profile(Entity, Knobs):
    """Every knob that trades latency for throughput, under one name.

    One called like a built-in profile changes it: what it leaves out stays as built in.
    """

    name: ProfileName

    @model_validator(mode="before")
    @classmethod
    def _begins_as_built_in(cls, fields: Any) -> Any:
        if not isinstance(fields, dict) or not isinstance(name := fields.get("name"), str):
            return fields
        built_in = BUILT_IN.get(name)
        if built_in is None:
            return fields
        whole = {**dict(built_in), **fields}
        if isinstance(triton := fields.get("triton"), dict):
            whole["triton"] = {**dict(built_in.triton), **triton}
        return whole
