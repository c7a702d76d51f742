"""Shape: the sizes of a decoder, as its Hugging Face `config.json` tells them. Pure.

Known are decoders with grouped-query attention and gated feed-forward layers: Llama, Mistral, Qwen, Mixtral
and their like. Biases are left out: less than a thousandth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine_builder.errors import CheckpointError

_NEEDED = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size")
_ARCHITECTURES: Mapping[str, str] = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "mixtral": "MixtralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
"""By `model_type`, where a config has no `architectures`."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of one decoder. Counts of parameters are of the whole model, before any splitting."""

    architecture: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    """Width of one feed-forward network; of a mixture, of one expert."""
    vocab: int
    max_positions: int
    tied_embeddings: bool = False
    experts: int = 1
    active_experts: int = 1

    @classmethod
    def of(cls, config: Mapping[str, Any], where: str = "config.json") -> Shape:
        """Reads a config; of a multimodal one its `text_config`. Raises CheckpointError."""
        text = config.get("text_config", config)
        if not isinstance(text, Mapping):
            raise CheckpointError(f"{where}: text_config is no JSON object", "fetch it again")
        missing = [name for name in _NEEDED if not isinstance(text.get(name), int) or text[name] < 1]
        if missing:
            raise CheckpointError(
                f"{where} does not say {', '.join(missing)}",
                "only decoders whose config has these can be planned and built",
            )
        heads, hidden = text["num_attention_heads"], text["hidden_size"]
        named = text.get("architectures") or [_ARCHITECTURES.get(str(text.get("model_type")), "unknown")]
        if not isinstance(named, list):
            raise CheckpointError(f"{where}: architectures is no list of names", "fetch it again")
        experts = text.get("num_local_experts") or text.get("num_experts") or 1
        if not isinstance(experts, int) or experts < 1:
            raise CheckpointError(f"{where}: num_experts is no count: {experts!r}", "fetch it again")
        return cls(
            architecture=str(named[0]),
            layers=text["num_hidden_layers"],
            hidden=hidden,
            heads=heads,
            kv_heads=text.get("num_key_value_heads") or heads,
            head_dim=text.get("head_dim") or hidden // heads,
            intermediate=(text.get("moe_intermediate_size") if experts > 1 else None)
            or text["intermediate_size"],
            vocab=text["vocab_size"],
            max_positions=text.get("max_position_embeddings") or 2048,
            tied_embeddings=bool(text.get("tie_word_embeddings", False)),
            experts=experts,
            active_experts=(text.get("num_experts_per_tok") or 1) if experts > 1 else 1,
        )

    @property
    def attention(self) -> int:
        """Parameters of one layer's four projections."""
        return self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)

    @property
    def expert(self) -> int:
        """Parameters of one feed-forward network."""
        return 3 * self.hidden * self.intermediate

    @property
    def linear(self) -> int:
        """Parameters of all linear layers, which quantization makes smaller."""
        router = self.hidden * self.experts if self.experts > 1 else 0
        return self.layers * (self.attention + self.experts * self.expert + router)

    @property
    def embedding(self) -> int:
        """Parameters of the table of embeddings; the head has as many, tied or not, once built."""
        return self.vocab * self.hidden

    @property
    def norms(self) -> int:
        """Parameters of all RMS norms."""
        return (2 * self.layers + 1) * self.hidden

    @property
    def parameters(self) -> int:
        """Of an engine: TensorRT-LLM keeps embedding and head apart even where the checkpoint ties them."""
        return self.linear + 2 * self.embedding + self.norms

    @property
    def computed(self) -> int:
        """Parameters that every token is multiplied with: the active experts' and the head's."""
        return self.layers * (self.attention + self.active_experts * self.expert) + self.embedding
