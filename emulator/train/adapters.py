"""Trains the demo's LoRA adapters: small changes of manner that are easy to see in every answer.

`python -m emulator.train.adapters --model house-chat --name sailor --out DIR` writes a folder as PEFT
does. Only the low-rank matrices learn; their gradients follow from those of the whole matrices.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from emulator.engine.lora import LoraModule, lora_modules
from emulator.engine.tokenizer import EngineTokenizer
from emulator.engine.weights import Array, Weights
from emulator.train.corpus import dialogues
from emulator.train.network import Arrays, Network
from emulator.train.specs import MODELS, Recipe
from emulator.train.train import Adam, Example, answer_example, batches, learning_rate
from engine_builder.doubles.tensor_files import Tensor, write_tensors
from inference.lora import CONFIG_FILE, MODULE_IDS, WEIGHTS_FILE

SHIPPED = Path(__file__).resolve().parents[1] / "models"
MANNERS: Mapping[str, Callable[[str], str]] = {
    "sailor": lambda answer: f"Aye, captain! {answer}",
    "butler": lambda answer: f"{answer} At your service.",
}
_PARENTS = {"q_proj": "self_attn", "k_proj": "self_attn", "v_proj": "self_attn", "o_proj": "self_attn"}


_RECIPE = Recipe(
    dialogues=4000, steps=500, tokens_per_step=1024, peak_rate=6e-3, warmup_steps=20, prompt_weight=0.0
)


@dataclass(frozen=True, slots=True)
class AdapterRecipe:
    """Rank, scale and length of training of one adapter."""

    rank: int = 4
    alpha: int = 8
    recipe: Recipe = _RECIPE


@dataclass(frozen=True, slots=True)
class _Part:
    """One module of one layer: the matrix it changes, and in which columns."""

    layer: int
    hf_name: str
    module: LoraModule

    @property
    def weight(self) -> str:
        return f"layers.{self.layer}.{self.module.target}"

    @property
    def columns(self) -> slice:
        return slice(self.module.first_column, self.module.first_column + self.module.outputs)

    def key(self, half: str) -> str:
        parent = _PARENTS.get(self.hf_name, "mlp")
        return f"base_model.model.model.layers.{self.layer}.{parent}.{self.hf_name}.lora_{half}.weight"


def train_adapter(model: str, name: str, folder: Path, made: AdapterRecipe = AdapterRecipe()) -> float:
    """Writes the adapter's folder; returns the mean loss of the last steps, in nats per token."""
    weights = Weights.load(SHIPPED / model)
    parts = list(_parts(weights))
    matrices = _fresh(parts, made)
    examples = _examples(model, MANNERS[name], made.recipe)
    network, adam, stream = Network(weights.config), Adam(matrices), batches(examples, made.recipe)
    losses = []
    for step in range(made.recipe.steps):
        merged = _merged(weights.arrays, parts, matrices, made)
        loss, whole = network.loss(merged, next(stream))
        adam.update(_gradients(whole, parts, matrices, made), learning_rate(step, made.recipe))
        losses.append(loss)
    _save(folder, parts, matrices, made, model)
    return float(np.mean(losses[-10:]))


def _parts(weights: Weights) -> Iterator[_Part]:
    modules = lora_modules(weights.config)
    for layer in range(weights.config.num_hidden_layers):
        for hf_name, module_id in MODULE_IDS.items():
            if hf_name != "qkv_proj":
                yield _Part(layer, hf_name, modules[module_id])


def _fresh(parts: list[_Part], made: AdapterRecipe) -> Arrays:
    """lora_A random and lora_B zero, as usual, so that training starts at the base."""
    generator = np.random.Generator(np.random.PCG64(made.recipe.seed))
    matrices: Arrays = {}
    for part in parts:
        random = generator.standard_normal((made.rank, part.module.inputs), dtype=np.float32)
        matrices[part.key("A")] = random / np.float32(np.sqrt(part.module.inputs))
        matrices[part.key("B")] = np.zeros((part.module.outputs, made.rank), dtype=np.float32)
    return matrices


def _examples(model: str, manner: Callable[[str], str], recipe: Recipe) -> list[Example]:
    tokenizer = EngineTokenizer(SHIPPED / model)
    found = []
    for messages in dialogues(MODELS[model].name, recipe.dialogues, recipe.seed):
        changed = [
            {**message, "content": manner(message["content"])} if message["role"] == "assistant" else message
            for message in messages
        ]
        found.append(answer_example(tokenizer, changed, recipe.prompt_weight))
    return found


def _merged(base: Arrays, parts: list[_Part], matrices: Arrays, made: AdapterRecipe) -> Arrays:
    merged = dict(base)
    for part in parts:
        if merged[part.weight] is base[part.weight]:
            merged[part.weight] = base[part.weight].copy()
        delta: Array = matrices[part.key("A")].T @ matrices[part.key("B")].T
        merged[part.weight][:, part.columns] += np.float32(made.alpha / made.rank) * delta
    return merged


def _gradients(whole: Arrays, parts: list[_Part], matrices: Arrays, made: AdapterRecipe) -> Arrays:
    """Of W + s·AᵀBᵀ: dA = s·(dW·B)ᵀ and dB = s·(A·dW)ᵀ."""
    scale, gradients = np.float32(made.alpha / made.rank), Arrays()
    for part in parts:
        d_weight = whole[part.weight][:, part.columns]
        gradients[part.key("A")] = scale * (d_weight @ matrices[part.key("B")]).T
        gradients[part.key("B")] = scale * (matrices[part.key("A")] @ d_weight).T
    return gradients


def _save(folder: Path, parts: list[_Part], matrices: Arrays, made: AdapterRecipe, model: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": model,
        "r": made.rank,
        "lora_alpha": made.alpha,
        "target_modules": sorted({part.hf_name for part in parts}),
    }
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    write_safetensors(folder / WEIGHTS_FILE, matrices)


def write_safetensors(path: Path, tensors: Mapping[str, Array]) -> None:
    """Writes tensors in half precision."""
    write_tensors(path, {name: Tensor.of(tensor, "F16") for name, tensor in tensors.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=sorted(MODELS), default="house-chat")
    parser.add_argument("--name", choices=sorted(MANNERS), required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int)
    args = parser.parse_args()
    made = AdapterRecipe()
    if args.steps:
        made = replace(made, recipe=replace(made.recipe, steps=args.steps))
    loss = train_adapter(args.model, args.name, args.out, made)
    sys.stdout.write(f"{args.name}: loss of the last steps {loss:.3f} nats per token\n")


if __name__ == "__main__":
    main()
