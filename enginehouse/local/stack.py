"""LocalStack: which model servers, models and deployments `up` runs. `DEMO_STACK` is the default.

A value only; `--stack FILE` reads another one from YAML.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from enginehouse.errors import SettingsError
from model_registry.entities import (
    LaneName,
    Modality,
    Name,
    ProfileName,
    ReasoningParserName,
    Scaling,
    ToolParserName,
)

MIB = 1024**2
BASE_MEMORY_BYTES = 350 * MIB
"""Redis, controller, this process and a gateway of one worker."""
WORKER_MEMORY_BYTES = 100 * MIB
SERVER_MEMORY_BYTES = 60 * MIB
"""A `tritonserver` before it loads anything."""
ENGINE_MEMORY_BYTES = 120 * MIB
"""The stub process of one CPU engine, with its weights and KV cache."""
TEXT_MODELS_MEMORY_BYTES = 120 * MIB
"""The stub processes of preprocessing, postprocessing and BLS."""

BUILDER_MEMORY_BYTES = 150 * MIB
"""A builder with a double at work."""

TEXT_MODELS = ("ensemble", "preprocessing", "postprocessing", "tensorrt_llm_bls")


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class EngineEntry(_Value):
    """One CPU engine on a model server."""

    weights: str
    """Which of the shipped models it runs."""
    runtime: Literal["trt-engine", "llmapi", "vllm", "encoder", "text-encoder"] = "trt-engine"
    """The last two embed: token ids, or text."""
    name: str = "tensorrt_llm"
    """Its model name on the server."""
    loaded: bool = True
    """From the start; otherwise it is in the server's repository, for a pool to load."""
    text_models: bool = False
    """Put preprocessing, postprocessing, ensemble and BLS around it, under their usual names."""
    limits: dict[str, int | bool | str] = Field(default_factory=dict)
    """Fields of `emulator.engine.api.EngineLimits`; the rest keep their defaults."""
    guided_decoding: bool = False
    """Let it follow schemas, expressions and grammars. LoRA is on where `limits` have `max_lora_rank`."""
    cancellation_check_period_ms: Annotated[int, Field(gt=0)] = 50
    stats_check_period_ms: Annotated[int, Field(gt=0)] = 100
    """How often the engine's own metrics are refreshed."""

    script_file: Path | None = None
    """Answers that are written down (see `emulator.engine.script`); for tests and demonstrations."""

    @property
    def served_names(self) -> frozenset[str]:
        """The model names a deployment may target."""
        return frozenset({self.name, *(TEXT_MODELS if self.text_models else ())})


class ServerEntry(_Value):
    """One model server process."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,30}$")]
    engines: Annotated[tuple[EngineEntry, ...], Field(min_length=1)]

    def engine(self, target: str) -> EngineEntry | None:
        """The engine behind a model name of this server."""
        return next((engine for engine in self.engines if target in engine.served_names), None)


class PoolEntry(_Value):
    """Servers on which scaled deployments find room."""

    name: Name
    servers: Annotated[tuple[str, ...], Field(min_length=1)]


class ModelEntry(_Value):
    """What clients name; its tokenizer is that of `weights`."""

    name: Name
    weights: str
    context_length: Annotated[int, Field(gt=0)] = 2048
    modality: Modality = "text"
    shortens: bool = False
    description: str | None = None
    default_profile: ProfileName = "balanced"
    aliases: tuple[Name, ...] = ()
    tool_parser: ToolParserName | None = None
    reasoning_parser: ReasoningParserName | None = None


class AdapterEntry(_Value):
    """LoRA weights on top of a model; the folder is one that is shipped beside the models'."""

    name: Name
    model: Name
    folder: str
    description: str | None = None
    aliases: tuple[Name, ...] = ()


class DeploymentEntry(_Value):
    """This model on that server, or in a pool on as many of its servers as it needs."""

    name: Name
    model: Name
    server: str | None = None
    scaling: Scaling | None = None
    """Its pool is one of the stack's."""
    target: str
    profile: ProfileName = "balanced"
    lane: LaneName | Literal["auto"] = "auto"
    max_concurrency: Annotated[int, Field(gt=0)] | None = None
    tokens_per_block: Annotated[int, Field(gt=0)] | None = None


class LocalStack(_Value):
    """A whole stack; its names agree with each other."""

    servers: Annotated[tuple[ServerEntry, ...], Field(min_length=1)]
    models: Annotated[tuple[ModelEntry, ...], Field(min_length=1)]
    deployments: Annotated[tuple[DeploymentEntry, ...], Field(min_length=1)]
    adapters: tuple[AdapterEntry, ...] = ()
    pools: tuple[PoolEntry, ...] = ()
    builder: bool = False
    """Run a builder, too, which makes emulated engines."""

    @model_validator(mode="after")
    def _names_agree(self) -> Self:
        models = {model.name for model in self.models}
        servers = {server.name: server for server in self.servers}
        for adapter in self.adapters:
            if adapter.model not in models:
                raise ValueError(f"adapter {adapter.name}: no model {adapter.model!r}")
        for deployment in self.deployments:
            if deployment.model not in models:
                raise ValueError(f"deployment {deployment.name}: no model {deployment.model!r}")
            for name in self.servers_of(deployment):
                if name not in servers:
                    raise ValueError(f"deployment {deployment.name}: no server {name!r}")
                engine = servers[name].engine(deployment.target)
                if engine is None:
                    raise ValueError(
                        f"deployment {deployment.name}: server {name!r} has no model {deployment.target!r}"
                    )
                if engine.loaded is (deployment.scaling is not None):
                    remedy = "say loaded: false" if engine.loaded else "leave out loaded: false"
                    raise ValueError(f"deployment {deployment.name}: {name} engine {engine.name!r}: {remedy}")
        return self

    def servers_of(self, deployment: DeploymentEntry) -> tuple[str, ...]:
        """Names of the servers that it is on, or may come to be on. Raises ValueError."""
        if (deployment.server is None) == (deployment.scaling is None):
            raise ValueError(f"deployment {deployment.name}: give either server or scaling")
        if deployment.scaling is None:
            return (deployment.server or "",)
        pool = next((one for one in self.pools if one.name == deployment.scaling.pool), None)
        if pool is None:
            raise ValueError(f"deployment {deployment.name}: no pool {deployment.scaling.pool!r}")
        return pool.servers

    def engine_of(self, deployment: DeploymentEntry) -> EngineEntry:
        """The engine that serves a deployment."""
        first = self.servers_of(deployment)[0]
        server = next(server for server in self.servers if server.name == first)
        engine = server.engine(deployment.target)
        if engine is None:
            raise KeyError(deployment.target)
        return engine


DEMO_STACK = LocalStack(
    servers=(
        ServerEntry(
            name="triton-0",
            engines=(
                EngineEntry(
                    weights="house-chat",
                    text_models=True,
                    limits={
                        "max_batch_size": 16,
                        "max_num_tokens": 512,
                        "kv_blocks": 512,
                        "max_lora_rank": 8,
                    },
                    guided_decoding=True,
                ),
            ),
        ),
        ServerEntry(
            name="triton-1",
            engines=(
                EngineEntry(
                    weights="house-chat",
                    name="house-chat",
                    limits={
                        "max_batch_size": 128,
                        "max_num_tokens": 2048,
                        "kv_blocks": 2048,
                        "max_lora_rank": 8,
                    },
                    guided_decoding=True,
                ),
                EngineEntry(
                    weights="depot-chat", runtime="llmapi", name="depot-chat", limits={"max_lora_rank": 8}
                ),
                EngineEntry(weights="depot-chat", runtime="vllm", name="siding-chat"),
                EngineEntry(weights="house-chat", runtime="encoder", name="house-vectors"),
            ),
        ),
    ),
    models=(
        ModelEntry(
            name="house-chat",
            weights="house-chat",
            default_profile="latency",
            description="Chat by token ids, on two engines: one built for latency, one for throughput",
            tool_parser="hermes",
        ),
        ModelEntry(
            name="depot-chat",
            weights="depot-chat",
            description="Chat by the LLM API model",
            tool_parser="hermes",
        ),
        ModelEntry(
            name="siding-chat",
            weights="depot-chat",
            description="Chat by Triton's vLLM backend",
            tool_parser="hermes",
        ),
        ModelEntry(
            name="yard-chat",
            weights="house-chat",
            description="Chat by the Triton ensemble",
            tool_parser="hermes",
        ),
        ModelEntry(
            name="kiosk-chat",
            weights="house-chat",
            description="Chat by business logic scripting",
            tool_parser="hermes",
        ),
        ModelEntry(
            name="house-vectors",
            weights="house-chat",
            context_length=512,
            modality="embedding",
            shortens=True,
            description="Embeddings by a plain Triton model; requests are joined",
        ),
    ),
    deployments=(
        DeploymentEntry(
            name="house-chat-latency",
            model="house-chat",
            profile="latency",
            server="triton-0",
            target="tensorrt_llm",
        ),
        DeploymentEntry(
            name="house-chat-throughput",
            model="house-chat",
            profile="throughput",
            server="triton-1",
            target="house-chat",
        ),
        DeploymentEntry(name="siding-chat", model="siding-chat", server="triton-1", target="siding-chat"),
        DeploymentEntry(
            name="house-vectors", model="house-vectors", server="triton-1", target="house-vectors"
        ),
        DeploymentEntry(
            name="depot-chat",
            model="depot-chat",
            server="triton-1",
            target="depot-chat",
            tokens_per_block=32,
        ),
        DeploymentEntry(
            name="yard-chat", model="yard-chat", server="triton-0", target="ensemble", lane="ensemble"
        ),
        DeploymentEntry(
            name="kiosk-chat",
            model="kiosk-chat",
            server="triton-0",
            target="tensorrt_llm_bls",
            lane="tensorrt_llm_bls",
        ),
    ),
    adapters=(
        AdapterEntry(
            name="sailor",
            model="house-chat",
            folder="house-chat-sailor",
            description="Talks like one: LoRA weights that the gateway sends to whichever engine serves",
        ),
    ),
)


def read_stack(path: Path) -> LocalStack:
    """A stack from YAML; raises SettingsError naming the field."""
    try:
        values: Any = yaml.safe_load(path.read_text())
        return LocalStack.model_validate(values)
    except OSError as error:
        raise SettingsError(f"stack file {path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise SettingsError(f"stack file {path}: {error}") from error
    except ValidationError as error:
        problems = "\n".join(
            f"{'.'.join(str(part) for part in problem['loc']) or 'stack'}: {problem['msg']}"
            for problem in error.errors(include_url=False, include_input=False)
        )
        raise SettingsError(f"stack file {path} cannot be used", problems) from error


def needed_memory_bytes(stack: LocalStack, workers: int = 1) -> int:
    """An estimate of what the whole stack takes: measured process sizes, with room for what requests need."""
    engines = [engine for server in stack.servers for engine in server.engines]
    return (
        BASE_MEMORY_BYTES
        + (workers - 1) * WORKER_MEMORY_BYTES
        + len(stack.servers) * SERVER_MEMORY_BYTES
        + len(engines) * ENGINE_MEMORY_BYTES
        + sum(TEXT_MODELS_MEMORY_BYTES for engine in engines if engine.text_models)
        + (BUILDER_MEMORY_BYTES if stack.builder else 0)
    )
