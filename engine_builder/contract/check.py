"""Judging a command line or a document by the sheet, as the program itself would. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine_builder.contract.options import Option, Table
from engine_builder.contract.versions import PINNED

_TRUTHS = ("true", "True", "TRUE", "1", "false", "False", "FALSE", "0")


@dataclass(frozen=True, slots=True)
class Complaint:
    """What is wrong with one flag or key."""

    name: str
    message: str

    def __str__(self) -> str:
        return f"{self.name}: {self.message}"


def check_arguments(table: Table, argv: Sequence[str], version: str = PINNED) -> list[Complaint]:
    """Complaints about arguments, the program's name not among them; an empty list: it would take them.

    Unknown flags, flags absent from that version (with the reason), values of another type or none of the
    choices, values missing, flags missing. Flags are written out: no abbreviations.
    """
    here, found = table.at(version), list[Complaint]()
    rest, seen, positional = list(argv), set[str](), 0
    while rest:
        word = rest.pop(0)
        if not _is_flag(word):
            positional += 1
            continue
        name, _, joined = word.partition("=")
        option = here.find(name)
        if option is None:
            found.append(Complaint(name, _unknown(table, here, name, version)))
            _take_values(rest)
            continue
        seen.add(option.name)
        values = [joined] if joined else _take_values(rest, option.kind)
        found += [Complaint(name, message) for message in _judge(option, values)]
    found += _missing(here, seen)
    if positional != len(here.positional):
        wanted = " ".join(here.positional) or "none"
        found.append(Complaint(table.name, f"takes {wanted} without a flag, got {positional}"))
    return found


def check_document(
    table: Table,
    document: Mapping[str, Any],
    version: str = PINNED,
    tables: Mapping[str, Table] | None = None,
) -> list[Complaint]:
    """Complaints about the keys and values of a document; `tables`: those of maps inside, by name."""
    return list(_document(table, document, version, tables or {}, ""))


def _document(
    table: Table, document: Mapping[str, Any], version: str, tables: Mapping[str, Table], above: str
) -> Iterator[Complaint]:
    here = table.at(version)
    for key, value in document.items():
        option = here.find(str(key))
        if option is None:
            yield Complaint(f"{above}{key}", _unknown(table, here, str(key), version))
        elif option.kind == "map":
            if not isinstance(value, Mapping):
                yield Complaint(f"{above}{key}", f"must be a mapping, got {value!r}")
            elif option.keys in tables:
                yield from _document(tables[option.keys], value, version, tables, f"{above}{key}.")
        else:
            values = [_text(one) for one in (value if isinstance(value, list) else [value])]
            for message in _judge(option, values):
                yield Complaint(f"{above}{key}", message)
    for complaint in _missing(here, set(document)):
        yield Complaint(f"{above}{complaint.name}", complaint.message)


def allowed(option: Option, value: str) -> str | None:
    """What may stand in place of a value that may not; None: it may."""
    if option.choices:
        return None if value in option.choices else f"one of {', '.join(option.choices)}"
    if option.kind == "bool":
        return None if value in _TRUTHS else "true or false"
    if option.pattern:
        return None if re.fullmatch(option.pattern, value) else option.note
    if option.kind == "int":
        fits = _is_number(value, "int") and (option.least is None or int(value) >= option.least)
        return None if fits else _whole(option.least)
    if option.kind == "float":
        fits = _is_number(value, "float") and (not option.share or 0 < float(value) <= 1)
        return None if fits else "above 0 and at most 1" if option.share else "a number"
    return None


def _whole(least: int | None) -> str:
    return "a whole number" if least is None else f"a whole number of at least {least}"


def _judge(option: Option, values: list[str]) -> Iterator[str]:
    if option.kind == "switch":
        if values:
            yield f"takes no value, got {values[0]!r}"
        return
    if not values:
        yield "expected one argument"
    for value in values:
        if option.choices and value not in option.choices:
            yield f"invalid choice: {value!r} (choose from {', '.join(option.choices)})"
        elif option.kind in ("int", "float") and not _is_number(value, option.kind):
            yield f"invalid {option.kind} value: {value!r}"
        elif option.kind == "bool" and value not in _TRUTHS:
            yield f"must be true or false, got {value!r}"


def _unknown(table: Table, here: Table, name: str, version: str) -> str:
    reason = table.why_absent(name, version)
    if reason is not None:
        return f"{table.name} of {version} has no such option: {reason}"
    names = [name for option in here.options for name in (option.name, *option.aliases)]
    near = difflib.get_close_matches(name, names, 1)
    return f"{table.name} of {version} has no such option" + (f"; did you mean {near[0]}?" if near else "")


def _missing(here: Table, seen: set[str]) -> list[Complaint]:
    return [
        Complaint(option.name, "is required")
        for option in here.options
        if option.required and option.name not in seen
    ]


def _take_values(rest: list[str], kind: str = "words") -> list[str]:
    """The values that follow a flag, off the list: none of a switch, all of `words`, else one."""
    values: list[str] = []
    most = {"switch": 0, "words": len(rest)}.get(kind, 1)
    while rest and len(values) < most and not _is_flag(rest[0]):
        values.append(rest.pop(0))
    return values


def _is_flag(word: str) -> bool:
    return word.startswith("-") and not _is_number(word, "float")


def _is_number(value: str, kind: str) -> bool:
    try:
        int(value) if kind == "int" else float(value)
    except ValueError:
        return False
    return True


def _text(value: Any) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)
