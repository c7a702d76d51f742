"""The words of the contract sheet as data: options of programs, keys of documents. Values only.

Section numbers (§) are the contract sheet's, from which the tables were made; each names its source as well.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from engine_builder.contract.versions import version_number

Kind = Literal["text", "int", "float", "switch", "words", "bool", "map"]
"""`switch`: a flag without value; `words`: one or more values. `bool` and `map` are of documents."""


@dataclass(frozen=True, slots=True)
class Option:
    """One flag, parameter or key. `default` is as the program's help has it; None: unset."""

    name: str
    kind: Kind = "text"
    default: str | None = None
    choices: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    required: bool = False
    deprecated: str = ""
    """What to use instead; empty: it is not."""
    since: str = ""
    """First version that has it; empty: all that are described."""
    until: str = ""
    """First version without it; empty: none yet."""
    note: str = ""
    keys: str = ""
    """Of a map: the table of its keys."""
    least: int | None = None
    """Of a whole number."""
    share: bool = False
    """A number above 0 and at most 1."""
    pattern: str = ""
    """Regular expression of a text; `note` says it in words."""

    def in_version(self, version: str) -> bool:
        """Whether that version has it."""
        number = version_number(version)
        return (not self.since or number >= version_number(self.since)) and (
            not self.until or number < version_number(self.until)
        )


@dataclass(frozen=True, slots=True)
class Absent:
    """A flag that older instructions name, or that one expects, and that is not there."""

    name: str
    """May end in `*`."""
    reason: str
    since: str = ""
    """First version without it; empty: it was never there."""
    remedy: str = ""
    """What to do about it, in the imperative; empty: leave it out."""

    def covers(self, name: str, version: str) -> bool:
        """Whether this is about that name in that version."""
        gone = not self.since or version_number(version) >= version_number(self.since)
        return gone and fnmatch.fnmatchcase(name, self.name)


@dataclass(frozen=True, slots=True)
class Table:
    """What one program or document takes."""

    name: str
    """Of the program (`trtllm-build`) or document (`KvCacheConfig`)."""
    section: str
    """Of the contract sheet."""
    source: str
    options: tuple[Option, ...]
    absent: tuple[Absent, ...] = ()
    positional: tuple[str, ...] = ()
    """Arguments without a flag, all needed."""

    def at(self, version: str) -> Table:
        """The same with the options of one version alone."""
        return replace(self, options=tuple(option for option in self.options if option.in_version(version)))

    def find(self, name: str) -> Option | None:
        """The option of that name or alias."""
        return next(
            (option for option in self.options if name == option.name or name in option.aliases), None
        )

    def absence(self, name: str) -> Absent | None:
        """What is known of a name that is not there, in any version."""
        return next((one for one in self.absent if fnmatch.fnmatchcase(name, one.name)), None)

    def why_absent(self, name: str, version: str) -> str | None:
        """The reason why a name is not there; None where nothing is known of it."""
        found = (absent.reason for absent in self.absent if absent.covers(name, version))
        gone = (
            f"gone since {option.until}" if option.until else f"new in {option.since}"
            for option in self.options
            if name in (option.name, *option.aliases) and not option.in_version(version)
        )
        return next(found, None) or next(gone, None)


def text(name: str, default: str | None = None, **more: Any) -> Option:
    """An option with a text value."""
    return replace(Option(name, "text", default), **more)


def number(name: str, default: int | None = None, **more: Any) -> Option:
    """An option with a whole number."""
    return replace(Option(name, "int", None if default is None else str(default)), **more)


def fraction(name: str, default: float | None = None, **more: Any) -> Option:
    """An option with a number that need not be whole."""
    return replace(Option(name, "float", None if default is None else str(default)), **more)


def switch(name: str, **more: Any) -> Option:
    """A flag without value, off by default."""
    return replace(Option(name, "switch"), **more)


def choice(name: str, choices: str, default: str | None = None, **more: Any) -> Option:
    """An option with one of some values, given with spaces between."""
    return replace(Option(name, "text", default, tuple(choices.split())), **more)


def each(make: Callable[..., Option], names: str, *arguments: Any, **more: Any) -> Iterator[Option]:
    """Several options alike, names with spaces between."""
    for name in names.split():
        yield make(name, *arguments, **more)
