"""Trains one model: corpus to tokenizer to weights, with Adam, in NumPy.

The same specification gives the same files on the same machine with the same NumPy, `tokenizers`
and number of BLAS threads; other machines may round differently, so their weights differ slightly.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emulator.engine.tokenizer import EngineTokenizer
from emulator.engine.weights import Array, ModelConfig, Weights
from emulator.train.corpus import dialogues, plain_lines, tokenizer_text
from emulator.train.network import Arrays, Batch, Network
from emulator.train.specs import ModelSpec, Recipe
from emulator.train.vocabulary import train_vocabulary

Report = Callable[[str], None]
REPORT_EVERY_STEPS = 20
PLAIN_LINE_REPEATS = 8
POOL_EXAMPLES = 512


@dataclass(frozen=True, slots=True)
class Example:
    """Token ids of one dialogue or line, and how much predicting each of them counts."""

    ids: list[int]
    weights: list[float]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a training run measured: mean loss of the first and last steps in nats per token, and seconds."""

    first_loss: float
    last_loss: float
    duration_s: float


class Adam:
    """Adam with bias correction and gradient clipping; updates the parameters in place."""

    def __init__(self, parameters: Arrays, clip: float = 1.0) -> None:
        self._parameters = parameters
        self._clip = clip
        self._mean = {name: np.zeros_like(array) for name, array in parameters.items()}
        self._square = {name: np.zeros_like(array) for name, array in parameters.items()}
        self._step = 0

    def update(self, gradients: Arrays, rate: float) -> None:
        self._step += 1
        norm = math.sqrt(sum(float(np.vdot(gradient, gradient)) for gradient in gradients.values()))
        scale = np.float32(min(1.0, self._clip / (norm + 1e-9)))
        first, second = 0.9, 0.98
        step_size = np.float32(rate * math.sqrt(1 - second**self._step) / (1 - first**self._step))
        for name, array in self._parameters.items():
            gradient = gradients[name] * scale
            mean, square = self._mean[name], self._square[name]
            mean += np.float32(1 - first) * (gradient - mean)
            square += np.float32(1 - second) * (gradient * gradient - square)
            array -= step_size * mean / (np.sqrt(square) + np.float32(1e-8))


def train(spec: ModelSpec, folder: Path, report: Report) -> Outcome:
    """Writes a complete model folder: tokenizer, chat template, configuration, weights."""
    started = time.monotonic()
    recipe = spec.recipe
    text = tokenizer_text(spec.name, recipe.seed)
    train_vocabulary(spec.vocabulary, text, spec.max_position_embeddings, folder)
    tokenizer = EngineTokenizer(folder)
    config = configuration(spec, tokenizer)
    examples = encode_corpus(spec, tokenizer)
    report(
        f"{spec.name}: vocabulary {config.vocab_size}, {len(examples)} examples, "
        f"{sum(len(example.ids) for example in examples)} tokens"
    )
    weights = Weights.random(config, recipe.seed)
    losses = fit(weights, recipe, examples, report)
    weights.save(folder)
    tail = max(1, len(losses) // 20)
    return Outcome(float(np.mean(losses[:tail])), float(np.mean(losses[-tail:])), time.monotonic() - started)


def configuration(spec: ModelSpec, tokenizer: EngineTokenizer) -> ModelConfig:
    return ModelConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=spec.hidden_size,
        intermediate_size=spec.intermediate_size,
        num_hidden_layers=spec.num_hidden_layers,
        num_attention_heads=spec.num_attention_heads,
        num_key_value_heads=spec.num_key_value_heads,
        head_dim=spec.head_dim,
        max_position_embeddings=spec.max_position_embeddings,
        bos_token_id=tokenizer.bos_id,
        eos_token_id=tokenizer.eos_id,
        pad_token_id=tokenizer.eos_id,
    )


def encode_corpus(spec: ModelSpec, tokenizer: EngineTokenizer) -> list[Example]:
    """All dialogues and lines as examples; answers count fully, prompts a little."""
    examples = [
        answer_example(tokenizer, messages, spec.recipe.prompt_weight)
        for messages in dialogues(spec.name, spec.recipe.dialogues, spec.recipe.seed)
    ]
    for line in plain_lines():
        ids = [*tokenizer.encode(line), tokenizer.eos_id]
        examples.extend([Example(ids, [1.0] * len(ids))] * PLAIN_LINE_REPEATS)
    return examples


def answer_example(
    tokenizer: EngineTokenizer, messages: Sequence[Mapping[str, str]], prompt_weight: float
) -> Example:
    """One dialogue; tokens of answers count fully, those of prompts `prompt_weight`."""
    assistant = tokenizer.encode("<|assistant|>", add_special_tokens=False)[0]
    text = tokenizer.render_chat(messages, add_generation_prompt=False).rstrip("\n")
    ids = tokenizer.encode(text, add_special_tokens=False)
    weights, answering = list[float](), False
    for token in ids:
        weights.append(1.0 if answering else prompt_weight)
        answering = token == assistant or (answering and token != tokenizer.eos_id)
    return Example(ids, weights)


def fit(weights: Weights, recipe: Recipe, examples: list[Example], report: Report) -> list[float]:
    """Trains the weights in place for `recipe.steps` steps; returns the loss of each step."""
    network = Network(weights.config)
    adam = Adam(weights.arrays)
    stream = batches(examples, recipe)
    losses: list[float] = []
    started = time.monotonic()
    for step in range(recipe.steps):
        loss, gradients = network.loss(weights.arrays, next(stream))
        adam.update(gradients, learning_rate(step, recipe))
        losses.append(loss)
        if (step + 1) % REPORT_EVERY_STEPS == 0 or step + 1 == recipe.steps:
            recent = float(np.mean(losses[-REPORT_EVERY_STEPS:]))
            report(f"step {step + 1}/{recipe.steps}  loss {recent:.3f}  {time.monotonic() - started:.0f} s")
    return losses


def learning_rate(step: int, recipe: Recipe) -> float:
    """Linear warm-up, then half a cosine down to a twentieth of the peak."""
    if step < recipe.warmup_steps:
        return recipe.peak_rate * (step + 1) / recipe.warmup_steps
    progress = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    return recipe.peak_rate * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * progress)))


def batches(examples: list[Example], recipe: Recipe) -> Iterator[Batch]:
    """Endless batches of about `tokens_per_step`, of examples of similar length, in shuffled order."""
    generator = np.random.Generator(np.random.PCG64(recipe.seed))
    while True:
        order = generator.permutation(len(examples))
        for start in range(0, len(order), POOL_EXAMPLES):
            pool = sorted(
                (examples[at] for at in order[start : start + POOL_EXAMPLES]), key=lambda e: len(e.ids)
            )
            groups = list(_grouped(pool, recipe.tokens_per_step))
            for at in generator.permutation(len(groups)):
                yield _padded(groups[at])


def _grouped(pool: list[Example], tokens_per_step: int) -> Iterator[list[Example]]:
    group: list[Example] = []
    for example in pool:
        if group and len(example.ids) * (len(group) + 1) > tokens_per_step:
            yield group
            group = []
        group.append(example)
    if group:
        yield group


def _padded(group: list[Example]) -> Batch:
    length = max(len(example.ids) for example in group)
    ids = np.zeros((len(group), length), dtype=np.int64)
    weights: Array = np.zeros((len(group), length), dtype=np.float32)
    for row, example in enumerate(group):
        ids[row, : len(example.ids)] = example.ids
        weights[row, : len(example.ids)] = example.weights
    return Batch(tokens=ids[:, :-1], targets=ids[:, 1:], weights=weights[:, 1:])
