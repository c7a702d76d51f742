"""Placeholders: `{output}` and `{NAME}` in a step's texts, where folders go. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from engine_builder.errors import StepError
from engine_builder.steps.step import Step

_PIECE = re.compile(r"\{\{|\}\}|\{([A-Za-z0-9_-]+)\}|[{}]")


class Piece(NamedTuple):
    """A part of a text: itself, or the name of a folder."""

    text: str
    folder: bool


def pieces(text: str) -> Iterator[Piece]:
    """The parts of a text in order. Raises ValueError for a brace that is neither doubled nor a name's."""
    at = 0
    for found in _PIECE.finditer(text):
        if found.start() > at:
            yield Piece(text[at : found.start()], folder=False)
        at = found.end()
        if found[1] is not None:
            yield Piece(found[1], folder=True)
        elif len(found[0]) == 2:
            yield Piece(found[0][0], folder=False)
        else:
            raise ValueError(f"a single {found[0]!r} at {found.start()}; write it doubled")
    if at < len(text):
        yield Piece(text[at:], folder=False)


def filled(text: str, folders: Mapping[str, str]) -> str:
    """`text` with its folders. Raises ValueError for one that is not among them."""
    return "".join(_folder(piece.text, folders) if piece.folder else piece.text for piece in pieces(text))


def quoted(text: str, folders: Mapping[str, str]) -> str:
    """`text` as one word of a shell, where `{output}` is the variable `output`."""
    word = ""
    for piece in pieces(text):
        if piece == ("output", True):
            word += '"$output"'
        else:
            word += shlex.quote(_folder(piece.text, folders) if piece.folder else piece.text)
    return word or "''"


def check(step: Step) -> None:
    """Raise StepError for a text of `step` that cannot be filled, or a file outside of its output."""
    folders = dict.fromkeys((*step.needs, "output"), "")
    texts = {f"argument {number}": text for number, text in enumerate(step.argv)}
    texts |= {f"environment {name}": text for name, text in step.environment.items()}
    texts |= {f"file {path}": text for path, text in step.files.items()}
    for where, text in texts.items():
        try:
            filled(text, folders)
        except ValueError as error:
            raise StepError(step.name, f"{where}: {error}") from error
    for path in (*step.files, *step.expects):
        if path.startswith("/") or ".." in path.split("/"):
            raise StepError(step.name, f"{path} is outside of the output", "name a path below it")


def _folder(name: str, folders: Mapping[str, str]) -> str:
    if name not in folders:
        raise ValueError(f"{{{name}}} is neither {{output}} nor one of `needs`")
    return folders[name]
