"""Lanes: a stack that has every lane, and which model stands for which."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx2 as httpx
import yaml

from emulator.engine import ModelConfig
from tests.emulator.adapters import write_adapter
from tests.stack.stack import ROOT, Stack, wait_until

MODELS = ROOT / "emulator" / "models"


class Lane(NamedTuple):
    name: str
    """Column of the page."""
    model: str
    weights: str
    """Whose tokenizer counts."""
    adapter: str | None = None
    """LoRA adapter of the model, by its own name; None where the stack has none for this lane."""


LANES = (
    Lane("tensorrt_llm", "house-chat", "house-chat", "sailor"),
    Lane("ensemble", "yard-chat", "house-chat", "yard-sailor"),
    Lane("tensorrt_llm_bls", "kiosk-chat", "house-chat", "kiosk-sailor"),
    Lane("llmapi", "depot-chat", "depot-chat", "depot-parrot"),
)


@contextmanager
def every_lane(folder: Path) -> Iterator[Stack]:
    """A running stack whose models are those of `LANES`, each with its adapter."""
    with Stack.start(folder) as stack:
        _add_adapters(stack, folder)
        yield stack


def _add_adapters(stack: Stack, folder: Path) -> None:
    """Those that the stack does not bring itself; returns when they are served."""
    config = ModelConfig.load(MODELS / "depot-chat")
    paths = {
        "yard-sailor": MODELS / "adapters" / "house-chat-sailor",
        "kiosk-sailor": MODELS / "adapters" / "house-chat-sailor",
        "depot-parrot": write_adapter(folder / "depot-parrot", config, seed=1, rank=4),
    }
    documents = [
        {"kind": "Adapter", "name": lane.adapter, "model": lane.model, "path": str(paths[lane.adapter])}
        for lane in LANES
        if lane.adapter in paths
    ]
    files = [{"name": "adapters.yaml", "text": yaml.safe_dump_all(documents)}]
    applied = httpx.post(f"{stack.origin}/admin/v1/apply", json={"files": files}, headers=stack.admin_headers)
    applied.raise_for_status()
    wanted = {f"{lane.model}+{lane.adapter}" for lane in LANES if lane.adapter is not None}
    with stack.client() as client:
        wait_until(lambda: wanted <= {model.id for model in client.models.list()}, 10, "adapters are served")
