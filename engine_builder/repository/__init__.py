"""Model repositories for Triton, with the exact tensor schemas of TensorRT-LLM."""

from engine_builder.repository.configs import (
    EnsembleStep,
    InstanceGroup,
    ModelSpec,
    QueuePolicy,
    model_config,
)
from engine_builder.repository.schemas import Dialect, LlmApiDialect
from engine_builder.repository.tensors import Schema, TensorSpec
from engine_builder.repository.text_models import ensemble_steps
from engine_builder.repository.writer import write_repository

__all__ = [
    "Dialect",
    "EnsembleStep",
    "InstanceGroup",
    "LlmApiDialect",
    "ModelSpec",
    "QueuePolicy",
    "Schema",
    "TensorSpec",
    "ensemble_steps",
    "model_config",
    "write_repository",
]
