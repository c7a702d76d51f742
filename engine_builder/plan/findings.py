"""Finding: one thing that is wrong, doubtful or worth knowing about a spec, with what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from engine_builder.errors import SpecError

Severity = Literal["error", "warning", "note"]
"""An error cannot be built or would not run as asked; a warning will disappoint; a note informs."""
ORDER: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True, slots=True)
class Finding:
    """What one rule says of one field."""

    rule: str
    """A stable name in words and dashes: `precision-architecture`."""
    field: str
    """Of the spec: `precision`."""
    reason: str
    remedy: str = ""
    severity: Severity = "error"

    def __str__(self) -> str:
        remedy = f" ({self.remedy})" if self.remedy else ""
        return f"{self.field}: {self.reason}{remedy} [{self.rule}]"


def errors(findings: Iterable[Finding]) -> list[Finding]:
    """Those that stop a build."""
    return [one for one in findings if one.severity == "error"]


def spec_error(name: str, findings: Iterable[Finding]) -> SpecError:
    """One error that says all of them, a line each."""
    stopping = errors(findings)
    lines = "\n".join(str(one) for one in stopping)
    remedies = dict.fromkeys(one.remedy for one in stopping if one.remedy)
    return SpecError(f"{name} cannot be built:\n{lines}", "; ".join(remedies))
