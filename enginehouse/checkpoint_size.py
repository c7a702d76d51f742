"""Checkpoint size: what a Hugging Face `config.json` tells of weights and KV cache, for a roofline card."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

from enginehouse.errors import CommandError
from model_registry.cards import GoodputCard
from router.goodput import Ask, forecast
from router.roofline import ModelSize, Precision, RooflineError, card

_BYTES = {"bf16": 2, "fp8": 1}
_NEEDED = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size")


def roofline_card(
    checkpoint: Path,
    gpu_class: str,
    gpus: int,
    precision: Precision,
    prompt_tokens: int,
    output_tokens: int,
    ttft_s: float,
    itl_s: float,
) -> GoodputCard:
    """The card of a model by its config, with the goodput that its lines mean. Raises CommandError."""
    size = model_size(read_config(checkpoint), precision)
    today = datetime.datetime.now(datetime.UTC).date()
    try:
        found = card(gpu_class, gpus, size, prompt_tokens, output_tokens, today)
    except RooflineError as error:
        raise CommandError(str(error)) from error
    goodput = forecast(found, Ask(prompt_tokens, output_tokens, ttft_s, itl_s))
    return found.model_copy(update={"goodput": goodput})


def read_config(checkpoint: Path) -> dict[str, Any]:
    """The config of a checkpoint's folder, or the file itself. Raises CommandError."""
    path = checkpoint / "config.json" if checkpoint.is_dir() else checkpoint
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CommandError(
            f"{path}: {error.strerror}.", "Name the folder of a Hugging Face checkpoint."
        ) from error
    except ValueError as error:
        raise CommandError(f"{path} is not JSON: {error}.", "Name a Hugging Face config.json.") from error
    text = config.get("text_config", config) if isinstance(config, dict) else {}
    missing = [name for name in _NEEDED if not isinstance(text.get(name), int)]
    if missing:
        raise CommandError(
            f"{path} does not say {', '.join(missing)}.",
            "Only decoders whose config has these can be estimated; measure the others.",
        )
    return dict(text)


def model_size(config: dict[str, Any], precision: Precision) -> ModelSize:
    """Parameters of a decoder with gated feed-forward layers, as Llama's, Qwen's and Mistral's are.

    Of a mixture of experts each layer has `num_local_experts`, `num_experts_per_tok` of which compute. Norms
    and biases are left out: less than a thousandth.
    """
    hidden, layers = config["hidden_size"], config["num_hidden_layers"]
    heads = config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads") or heads
    head = config.get("head_dim") or hidden // heads
    experts = config.get("num_local_experts") or config.get("num_experts") or 1
    active = config.get("num_experts_per_tok") or 1
    width = config.get("moe_intermediate_size") or config["intermediate_size"]
    attention = hidden * head * (2 * heads + 2 * kv_heads)
    expert = 3 * hidden * width
    vocabulary = config["vocab_size"] * hidden
    tables = vocabulary if config.get("tie_word_embeddings") else 2 * vocabulary
    # Of the table of embeddings one row a token is read; that of the logits is multiplied with.
    computed = layers * (attention + min(active, experts) * expert) + vocabulary
    stored = layers * (attention + experts * expert) + tables
    kv_bytes = 2 * layers * kv_heads * head * _BYTES[precision]
    return ModelSize(computed, stored * _BYTES[precision], kv_bytes, precision)
