"""Training works and repeats: the loss falls, and the same recipe makes the same bytes."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from emulator.engine import Weights
from emulator.train.corpus import dialogues
from emulator.train.specs import DEPOT_CHAT
from emulator.train.train import train

TINY = replace(
    DEPOT_CHAT,
    vocabulary=replace(DEPOT_CHAT.vocabulary, size=400),
    recipe=replace(DEPOT_CHAT.recipe, dialogues=60, steps=40, tokens_per_step=512, warmup_steps=4),
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=1,
    num_attention_heads=2,
    head_dim=16,
)


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], float, float]:
    lines: list[str] = []
    folder = tmp_path_factory.mktemp("first")
    outcome = train(TINY, folder, lines.append)
    return folder, lines, outcome.first_loss, outcome.last_loss


def test_the_same_recipe_makes_the_same_files(
    trained: tuple[Path, list[str], float, float], tmp_path: Path
) -> None:
    train(TINY, tmp_path, lambda _: None)
    assert digests(tmp_path) == digests(trained[0])
    assert set(digests(tmp_path)) == {"config.json", "tokenizer.json", "tokenizer_config.json", "weights.npz"}


def test_another_seed_makes_other_weights(
    trained: tuple[Path, list[str], float, float], tmp_path: Path
) -> None:
    train(replace(TINY, recipe=replace(TINY.recipe, seed=9)), tmp_path, lambda _: None)
    assert digests(tmp_path)["weights.npz"] != digests(trained[0])["weights.npz"]


def test_the_loss_falls_and_progress_is_told(trained: tuple[Path, list[str], float, float]) -> None:
    _, lines, first, last = trained
    assert last < first - 0.5
    assert any(line.startswith("step 40/40  loss") for line in lines)


def test_weights_survive_saving(trained: tuple[Path, list[str], float, float], tmp_path: Path) -> None:
    weights = Weights.load(trained[0])
    weights.save(tmp_path)
    assert digests(tmp_path)["weights.npz"] == digests(trained[0])["weights.npz"]
    assert weights.embed.dtype == "float32"


def test_weights_of_another_shape_are_refused(
    trained: tuple[Path, list[str], float, float], tmp_path: Path
) -> None:
    weights = Weights.load(trained[0])
    with pytest.raises(ValueError, match=r"layers\.1\.attention_norm"):
        Weights(replace(weights.config, num_hidden_layers=2), weights.arrays)


def test_dialogues_repeat_with_their_seed_and_alternate_roles() -> None:
    first = list(dialogues("house-chat", 50, 3))
    assert first == list(dialogues("house-chat", 50, 3))
    assert first != list(dialogues("house-chat", 50, 4))
    for messages in first:
        roles = [message["role"] for message in messages if message["role"] != "system"]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
