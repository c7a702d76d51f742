"""Tuning journal: a JSON file with what a search has measured, by which it resumes and restores."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from engine_builder.tuning.space import Knob, Measured, Setting, Space, Trial
from enginehouse.errors import CommandError
from enginehouse.tuned_deployment import Original
from enginehouse.written import WRONG_SHAPE, why_wrong, write_text

VERSION = 1


class Journal(NamedTuple):
    """One search."""

    model: str
    """As clients ask for it."""
    lengths: tuple[int, int]
    """Tokens of prompts and answers."""
    seconds: float
    """Of one measurement."""
    original: Original
    space: Space
    history: list[Measured]

    def write(self, path: Path) -> None:
        """Whole or not at all. Raises CommandError."""
        text = json.dumps(
            {
                "enginehouse_tune": VERSION,
                "model": self.model,
                "prompt_tokens": self.lengths[0],
                "output_tokens": self.lengths[1],
                "seconds": self.seconds,
                "original": self.original.as_dict(),
                "space": {
                    "knobs": {knob.name: list(knob.values) for knob in self.space.knobs},
                    "start": dict(self.space.start.values),
                    "loads": list(self.space.loads),
                },
                "history": [_told(one) for one in self.history],
            },
            indent=1,
        )
        write_text(path, text, "--journal")

    @classmethod
    def read(cls, path: Path) -> Journal:
        """Raises CommandError where it is not there or not a journal."""
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            if fields["enginehouse_tune"] != VERSION:
                raise ValueError(f"version {fields['enginehouse_tune']} is not {VERSION}")
            space = fields["space"]
            return cls(
                fields["model"],
                (fields["prompt_tokens"], fields["output_tokens"]),
                fields["seconds"],
                Original.from_dict(fields["original"]),
                Space(
                    tuple(Knob(name, tuple(values)) for name, values in space["knobs"].items()),
                    _setting(space["start"]),
                    tuple(space["loads"]),
                ),
                [_measured(one) for one in fields["history"]],
            )
        except OSError as error:
            raise CommandError(f"{path}: {error.strerror}.", "Name a journal that can be read.") from error
        except WRONG_SHAPE as error:
            raise CommandError(
                f"{path} is not a journal of `enginehouse tune`: {why_wrong(error)}",
                "name one that it has written, or begin a new search without --resume",
            ) from error


def _told(one: Measured) -> dict[str, Any]:
    trial = one.trial
    fields = {**one._asdict(), "trial": {**trial._asdict(), "setting": dict(trial.setting.values)}}
    return {**fields, "goodput": one.goodput}


def _measured(fields: Mapping[str, Any]) -> Measured:
    trial = fields["trial"]
    rest = {name: value for name, value in fields.items() if name not in {"trial", "goodput"}}
    return Measured(Trial(_setting(trial["setting"]), trial["clients"], trial["weight"]), **rest)


def _setting(values: Mapping[str, str]) -> Setting:
    return Setting(tuple(values.items()))
