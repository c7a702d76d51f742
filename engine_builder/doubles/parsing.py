"""Command lines of the doubles, read by parsers made of the contract sheet: what it lacks, they refuse."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from engine_builder.contract import PINNED, Option, table

_TYPES: dict[str, type] = {"int": int, "float": float}


def parser(program: str, version: str = PINNED) -> argparse.ArgumentParser:
    """The parser of a program in one version; a bad line ends the process with exit status 2."""
    here = table(program).at(version)
    made = argparse.ArgumentParser(prog=program, description=f"Stands in for {program} of {version}.")
    for name in here.positional:
        made.add_argument(name)
    for option in here.options:
        made.add_argument(option.name, *option.aliases, **_settings(option))
    return made


def parse(program: str, arguments: Sequence[str] | None, version: str = PINNED) -> argparse.Namespace:
    """The values, by names without dashes."""
    return parser(program, version).parse_args(arguments)


def _help(option: Option) -> str | None:
    return f"Deprecated: {option.deprecated}" if option.deprecated else option.note or None


def _settings(option: Option) -> dict[str, Any]:
    settings: dict[str, Any] = {"dest": option.name.lstrip("-"), "help": _help(option)}
    if option.kind == "switch":
        return {**settings, "action": "store_true"}
    convert = _TYPES.get(option.kind, str)
    settings["type"] = convert
    settings["default"] = None if option.default is None else convert(option.default)
    if option.choices:
        settings["choices"] = [convert(one) for one in option.choices]
    if option.kind == "words":
        settings["nargs"] = "+"
    return {**settings, "required": option.required}
