"""Identity: the digest of an engine, and its name. The same that went in, the same digest."""

from __future__ import annotations

import hashlib
import json

from model_registry.engine_specs import EngineSpec, Runtime

RECIPE = 1
"""Raised when the same spec is built in another way than before."""
_NAMES_ONLY = {"name", "model", "checkpoint"}
"""Fields that change nothing in what is built: the checkpoint counts by its content."""


def engine_digest(spec: EngineSpec, checkpoint_digest: str, runtime: Runtime) -> str:
    """SHA-256, hex, over a spec that leaves nothing open, the weights and how they are built.

    Raises ValueError for a spec that leaves something open: `plan` closes it.
    """
    left = [name for name in DECIDED if getattr(spec, name) is None]
    if left:
        raise ValueError(f"{spec.name} leaves {', '.join(left)} open; resolve it first")
    whole = {
        "recipe": RECIPE,
        "spec": spec.model_dump(mode="json", exclude=_NAMES_ONLY),
        "checkpoint": checkpoint_digest,
        "runtime": runtime,
    }
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def engine_name(spec: EngineSpec, digest: str) -> str:
    """`<spec>-<12 digits>`: what the registry and the store call it."""
    return f"{spec.name}-{digest[:12]}"


DECIDED = (
    "precision",
    "kv_cache",
    "tensor_parallel",
    "pipeline_parallel",
    "max_batch_size",
    "max_seq_len",
    "max_num_tokens",
    "fp8_context_fmha",
    "scheduler_policy",
)
"""Fields that a spec may leave to `plan`."""
