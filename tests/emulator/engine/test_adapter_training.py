"""Training of adapters: what it writes, and that the same recipe writes the same bytes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from emulator.train.adapters import AdapterRecipe, train_adapter
from inference.lora import CONFIG_FILE, WEIGHTS_FILE, load_adapter

BASE = AdapterRecipe()
SHORT = replace(BASE, rank=2, recipe=replace(BASE.recipe, dialogues=40, steps=12, tokens_per_step=256))


def test_the_same_recipe_makes_the_same_adapter(tmp_path: Path) -> None:
    for name in ("first", "second"):
        train_adapter("depot-chat", "butler", tmp_path / name, SHORT)
    for file in (CONFIG_FILE, WEIGHTS_FILE):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()
    adapter = load_adapter(tmp_path / "first")
    assert adapter.config[:, 2].tolist() == [2] * 21
    assert np.abs(adapter.weights).max() > 0


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    longer = replace(SHORT, recipe=replace(SHORT.recipe, steps=50))
    early = train_adapter("depot-chat", "butler", tmp_path / "early", SHORT)
    assert train_adapter("depot-chat", "butler", tmp_path / "late", longer) < early
