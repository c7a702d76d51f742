"""The models that are shipped, and the recipe of each."""

from __future__ import annotations

from dataclasses import dataclass

from emulator.train.vocabulary import TURNS_IN_A_ROW, TURNS_ON_LINES, VocabularySpec


@dataclass(frozen=True, slots=True)
class Recipe:
    """How long and how hard to train; `tokens_per_step` counts padding too."""

    dialogues: int
    steps: int
    tokens_per_step: int = 2048
    peak_rate: float = 4e-3
    warmup_steps: int = 100
    prompt_weight: float = 0.05
    seed: int = 1


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One model: its name, vocabulary, shape and recipe."""

    name: str
    vocabulary: VocabularySpec
    recipe: Recipe
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int = 32
    max_position_embeddings: int = 2048


HOUSE_CHAT = ModelSpec(
    name="house-chat",
    vocabulary=VocabularySpec(3072, "</s>", TURNS_ON_LINES, single_digits=False),
    recipe=Recipe(dialogues=16000, steps=1000),
    hidden_size=144,
    intermediate_size=384,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
)
DEPOT_CHAT = ModelSpec(
    name="depot-chat",
    vocabulary=VocabularySpec(1280, "<|end|>", TURNS_IN_A_ROW, single_digits=True),
    recipe=Recipe(dialogues=12000, steps=1600, seed=2),
    hidden_size=96,
    intermediate_size=256,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=1,
    head_dim=24,
)
MODELS = {spec.name: spec for spec in (HOUSE_CHAT, DEPOT_CHAT)}
