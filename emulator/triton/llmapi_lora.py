"""LoRA at the `llmapi` model: an adapter by the path of its folder on the server's disk."""

from __future__ import annotations

from pathlib import Path

from emulator.engine import EngineError, LoraTask
from emulator.triton.tensors import Tensors, scalar, text
from inference.errors import AdapterError
from inference.lora import load_adapter

_NAMES = ("lora_id", "lora_name", "lora_path")


def lora_of_path(tensors: Tensors) -> LoraTask | None:
    """The adapter that a request names, read from its folder; None when it names none.

    Raises EngineError unless `lora_id`, `lora_name` and `lora_path` come together, when the checkpoint
    is not of Hugging Face's kind, and when the folder cannot be used.
    """
    given = [name for name in _NAMES if name in tensors]
    if not given:
        return None
    if len(given) < len(_NAMES):
        raise EngineError(f"{', '.join(_NAMES)} must all be given for LoRA, got {', '.join(given)}")
    source = text(tensors, "lora_ckpt_source") or "hf"
    if source != "hf":
        raise EngineError(f"lora_ckpt_source must be hf, got {source!r}")
    try:
        adapter = load_adapter(Path(text(tensors, "lora_path") or ""))
    except AdapterError as error:
        raise EngineError(str(error)) from error
    return LoraTask(int(scalar(tensors, "lora_id", 0)), adapter.weights, adapter.config)
