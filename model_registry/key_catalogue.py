"""KeySpec: one row of a catalogue of Redis keys; every module that owns keys has such a catalogue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class KeySpec:
    """A key, or keys that are alike."""

    suffix: str
    """What follows the prefix of its module, `eh:{<name>}:` or `eh:{<name>:<part>}:`."""
    type: Literal["hash", "set", "stream", "string", "zset"]
    lapses: str
    """When it goes."""
    meaning: str
    owner: str = ""
    """Who writes it; empty: every process of its module."""
