"""What preflight says: problems that a look found, and the check that they make."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

from model_registry.engines import Check

T = TypeVar("T")


class Problem(NamedTuple):
    """One thing that is wrong."""

    detail: str
    """What was found, and where."""
    remedy: str
    """What to do."""


class Look(NamedTuple):
    """One look at a repository, by the name of its check."""

    name: str
    find: Callable[..., Iterable[Problem]]


def checked(name: str, problems: Iterable[Problem], passed_detail: str = "") -> Check:
    """The check of a look: passed when it found nothing."""
    found = list(problems)
    if not found:
        return Check(name=name, passed=True, detail=passed_detail)
    return Check(
        name=name,
        passed=False,
        detail="; ".join(problem.detail for problem in found),
        remedy="; ".join(dict.fromkeys(problem.remedy for problem in found)),
    )
