"""One Triton model as a value, and its `config.pbtxt` as a protobuf message."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tritonclient.grpc import model_config_pb2

from engine_builder.repository.tensors import Schema, TensorSpec

InstanceKind = Literal["KIND_CPU", "KIND_GPU", "KIND_AUTO", "KIND_MODEL"]


@dataclass(frozen=True, slots=True)
class InstanceGroup:
    """How many copies of a model run, and on what; `gpus` are device numbers for KIND_GPU."""

    count: int = 1
    kind: InstanceKind = "KIND_CPU"
    gpus: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class QueuePolicy:
    """Triton's dynamic batcher and its queue; see `model_registry.triton_queue` for what each means.

    `max_queue_size` None is unbounded and `timeout_us` 0 for ever, as Triton's 0. `priority_levels` 0: none.
    """

    preferred_batch_sizes: tuple[int, ...]
    max_queue_delay_us: int = 0
    max_queue_size: int | None = None
    timeout_us: int = 0
    timeout_action: Literal["REJECT", "DELAY"] = "REJECT"
    allow_timeout_override: bool = False
    priority_levels: int = 0
    default_priority_level: int = 0


@dataclass(frozen=True, slots=True)
class EnsembleStep:
    """One step: the model it calls, and ensemble tensor names by the model's own tensor names."""

    model_name: str
    input_map: Mapping[str, str]
    output_map: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Everything that a model repository says about one model.

    `backend` is Triton's name of it (`tensorrtllm`, `python`); None for ensembles, which have `steps`
    instead. `max_batch_size` 0 means that tensors carry no batch dimension. `parameters` go in as
    `string_value`. `model_file` is copied to `1/model.py`; None where the backend needs no file.
    `files` are further texts of the version folder by name, such as `model.yaml`.
    """

    name: str
    schema: Schema
    backend: str | None = None
    max_batch_size: int = 0
    decoupled: bool = False
    parameters: Mapping[str, str] = field(default_factory=dict)
    instances: InstanceGroup = InstanceGroup()
    queue: QueuePolicy | None = None
    steps: tuple[EnsembleStep, ...] = ()
    model_file: Path | None = None
    files: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name or self.name.startswith("."):
            raise ValueError(f"name must be usable as a folder name, got {self.name!r}")
        if (self.backend is None) != bool(self.steps):
            raise ValueError(
                f"{self.name}: a model has a backend, an ensemble has steps; give exactly one of them"
            )
        if self.max_batch_size < 0:
            raise ValueError(f"{self.name}: max_batch_size must not be negative, got {self.max_batch_size}")
        if self.queue is not None and self.max_batch_size == 0:
            raise ValueError(f"{self.name}: a queue policy needs max_batch_size of at least 1")
        if self.queue is not None and max(self.queue.preferred_batch_sizes, default=0) > self.max_batch_size:
            raise ValueError(
                f"{self.name}: preferred_batch_sizes {self.queue.preferred_batch_sizes} must not be above "
                f"max_batch_size {self.max_batch_size}"
            )


def model_config(spec: ModelSpec) -> model_config_pb2.ModelConfig:
    """The message that `config.pbtxt` holds as text."""
    config = model_config_pb2.ModelConfig(name=spec.name, max_batch_size=spec.max_batch_size)
    for tensor in spec.schema.inputs:
        _add_input(config, tensor)
    for tensor in spec.schema.outputs:
        _add_output(config, tensor)
    for key, value in sorted(spec.parameters.items()):
        config.parameters[key].string_value = value
    if spec.steps:
        _add_steps(config, spec)
    else:
        _add_execution(config, spec)
    return config


def _add_execution(config: model_config_pb2.ModelConfig, spec: ModelSpec) -> None:
    config.backend = spec.backend
    config.model_transaction_policy.decoupled = spec.decoupled
    group = spec.instances
    kind = model_config_pb2.ModelInstanceGroup.Kind.Value(group.kind)
    config.instance_group.add(count=group.count, kind=kind, gpus=group.gpus)
    if spec.queue is not None:
        _add_queue(config, spec.queue)


def _add_queue(config: model_config_pb2.ModelConfig, queue: QueuePolicy) -> None:
    batching = config.dynamic_batching
    batching.preferred_batch_size.extend(queue.preferred_batch_sizes)
    batching.max_queue_delay_microseconds = queue.max_queue_delay_us
    batching.priority_levels = queue.priority_levels
    batching.default_priority_level = queue.default_priority_level
    policy = batching.default_queue_policy
    policy.max_queue_size = queue.max_queue_size or 0
    policy.default_timeout_microseconds = queue.timeout_us
    policy.timeout_action = model_config_pb2.ModelQueuePolicy.TimeoutAction.Value(queue.timeout_action)
    policy.allow_timeout_override = queue.allow_timeout_override


def _add_steps(config: model_config_pb2.ModelConfig, spec: ModelSpec) -> None:
    config.platform = "ensemble"
    for step in spec.steps:
        config.ensemble_scheduling.step.add(
            model_name=step.model_name,
            model_version=-1,
            input_map=dict(step.input_map),
            output_map=dict(step.output_map),
        )


def _add_input(config: model_config_pb2.ModelConfig, tensor: TensorSpec) -> None:
    added = config.input.add(
        name=tensor.name,
        data_type=_data_type(tensor),
        dims=tensor.dims,
        optional=tensor.optional,
        allow_ragged_batch=tensor.ragged,
    )
    if tensor.reshape is not None:
        added.reshape.shape.extend(tensor.reshape)
        added.reshape.SetInParent()


def _add_output(config: model_config_pb2.ModelConfig, tensor: TensorSpec) -> None:
    added = config.output.add(name=tensor.name, data_type=_data_type(tensor), dims=tensor.dims)
    if tensor.reshape is not None:
        added.reshape.shape.extend(tensor.reshape)
        added.reshape.SetInParent()


def _data_type(tensor: TensorSpec) -> model_config_pb2.DataType:
    return model_config_pb2.DataType.Value(f"TYPE_{tensor.dtype}")
