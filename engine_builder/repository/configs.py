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
    """Triton's dynamic batcher. `max_queue_size` None is unbounded, as Triton's 0."""

    preferred_batch_size: int
    max_queue_delay_us: int = 0
    max_queue_size: int | None = None


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
        batching = config.dynamic_batching
        batching.preferred_batch_size.append(spec.queue.preferred_batch_size)
        batching.max_queue_delay_microseconds = spec.queue.max_queue_delay_us
        batching.default_queue_policy.max_queue_size = spec.queue.max_queue_size or 0


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
