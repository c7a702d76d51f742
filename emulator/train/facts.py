"""What the small models know: the tables of `facts.json`, written for this project."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

Table = tuple[tuple[str, str], ...]
Words = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Facts:
    """Pairs of question word and answer, and lists of parts for haiku and stories."""

    capitals: Table
    colours: Table
    opposites: Table
    translations: tuple[tuple[str, str, str], ...]
    emoji: Table
    sounds: Table
    series: Table
    explained: Table
    reasons: Table
    topics: Words
    haiku_second: Words
    haiku_third: Words
    heroes: Words
    places: Words
    troubles: Words
    remedies: Words
    words_to_spell: Words
    names: Words
    lines: Words
    small_talk: tuple[tuple[Words, str], ...]


@cache
def known() -> Facts:
    """The tables, read once."""
    stored = json.loads((Path(__file__).parent / "facts.json").read_text(encoding="utf-8"))
    return Facts(**{field.name: _frozen(stored[field.name]) for field in fields(Facts)})


def _frozen(value: Any) -> Any:
    """Lists and objects of JSON as tuples, at every depth."""
    if isinstance(value, dict):
        return tuple(value.items())
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value
