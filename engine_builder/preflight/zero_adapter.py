"""An adapter of zeros, of rank 1, for a model's attention: an engine that takes it takes adapters."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from engine_builder.errors import PackageError
from engine_builder.shape import Shape
from inference.lora import MODULE_IDS, LoraTensors

RANK = 1


def zero_adapter(checkpoint: Path | None) -> LoraTensors:
    """In the layout of `inference.lora`, for the model of a folder's `config.json`. Raises PackageError."""
    path = None if checkpoint is None else checkpoint / "config.json"
    if path is None or not path.is_file():
        raise PackageError("no config.json tells the model's sizes", "give preflight the packaged engine")
    shape = Shape.of(json.loads(path.read_text(encoding="utf-8")), str(path))
    widths = {"q_proj": shape.heads, "k_proj": shape.kv_heads, "v_proj": shape.kv_heads}
    rows = [
        (MODULE_IDS[module], layer, RANK * (shape.hidden + heads * shape.head_dim))
        for layer in range(shape.layers)
        for module, heads in widths.items()
    ]
    weights = np.zeros((len(rows), max(size for _, _, size in rows)), np.float16)
    config = np.array([(module, layer, RANK) for module, layer, _ in rows], np.int32)
    return LoraTensors(weights, config)
