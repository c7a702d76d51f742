"""Lanes: a stack that has every lane, and which model stands for which."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.stack.stack import Stack


class Lane(NamedTuple):
    name: str
    """Column of the page."""
    model: str
    weights: str
    """Whose tokenizer counts."""


LANES = (
    Lane("tensorrt_llm", "house-chat", "house-chat"),
    Lane("ensemble", "yard-chat", "house-chat"),
    Lane("tensorrt_llm_bls", "kiosk-chat", "house-chat"),
    Lane("llmapi", "depot-chat", "depot-chat"),
)


@contextmanager
def every_lane(folder: Path) -> Iterator[Stack]:
    """A running stack whose models are those of `LANES`."""
    with Stack.start(folder) as stack:
        yield stack
