"""Differences: what a change of the registry did, or would do, as commands show it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

MARKS = {"created": "+", "configured": "~", "deleted": "-"}


@dataclass(frozen=True, slots=True)
class Change:
    """What became of one object."""

    kind: str
    name: str
    outcome: str
    fields: tuple[str, ...] = ()
    """One line for each field that differs."""

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> Self:
        """From the admin API's words."""
        outcome = answer["change"]
        return cls(
            answer["kind"], answer["name"], outcome, field_lines(answer["fields"], outcome == "created")
        )

    def shown(self, dry_run: bool) -> str:
        """A line for the object, and one for each field."""
        mark = MARKS.get(self.outcome, " ")
        head = f"{mark} {self.kind.lower()}/{self.name} {self.outcome}{' (dry run)' if dry_run else ''}"
        return "\n".join([head, *(f"    {line}" for line in self.fields)])


def field_lines(fields: list[dict[str, Any]], new: bool) -> tuple[str, ...]:
    """`field: before -> after`; of a `new` object, `field: after`."""
    return tuple(
        f"{one['field']}: " + ("" if new else f"{_told(one['before'])} -> ") + _told(one["after"])
        for one in fields
    )


def _told(value: Any) -> str:
    if value is None:
        return "(none)"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
