"""A LoRA adapter in the tensors of the lanes that take it by id, with its weights or without."""

from __future__ import annotations

from typing import Any

from inference.errors import AdapterUnsendableError, UnsupportedFeatureError
from inference.request import Lora
from inference.schema import Schema

_DATATYPE = "FP16"
_NAMES = ("lora_task_id", "lora_weights", "lora_config")


class LoraTensors:
    """The adapter's tensors in one schema of the `tensorrt_llm` family."""

    def __init__(self, schema: Schema) -> None:
        self._declared = all(name in schema.inputs for name in _NAMES)
        self._datatype = schema.inputs["lora_weights"].datatype if self._declared else None
        self._lane = schema.lane

    def check(self) -> None:
        """Raise UnsupportedFeatureError where the schema has no such tensors, or wants other numbers."""
        if not self._declared:
            raise no_adapter(self._lane)
        if self._datatype != _DATATYPE:
            raise AdapterUnsendableError(
                f"The model's server takes LoRA weights as {self._datatype}, and they can be sent as "
                f"{_DATATYPE} only: its operator must serve an engine that takes those."
            )

    def tensors(self, lora: Lora) -> dict[str, Any]:
        """The id, and the weights where they are sent along."""
        if lora.weights is None:
            return {"lora_task_id": lora.task_id}
        values = (lora.task_id, lora.weights.weights, lora.weights.config)
        return dict(zip(_NAMES, values, strict=True))


def no_adapter(lane: str) -> UnsupportedFeatureError:
    """The refusal of an adapter by `lane`."""
    return UnsupportedFeatureError(
        f"`model` names a LoRA adapter, which is not supported by the {lane} lane of this model. "
        "Ask for the model without it.",
        param="model",
    )
