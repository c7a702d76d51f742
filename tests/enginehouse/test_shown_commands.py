"""What documentation, examples and help texts show can be typed: its options exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command

from enginehouse.cli import app

TEXTS = [
    Path("README.md"),
    Path("compose.yaml"),
    *sorted(path for folder in ("docs", "changes", "deploy") for path in Path(folder).rglob("*.md")),
    *sorted(path for path in Path("examples").rglob("*") if path.suffix in {".md", ".yaml", ".yml"}),
    *sorted(Path("enginehouse/commands").glob("*.py")),
]
_SHOWN = re.compile(r"(?:^|[`$] ?|\s)enginehouse ((?:[a-z-]+)(?: [^`#\n|;)]*)?)")


def options_of() -> dict[tuple[str, ...], set[str]]:
    """By command, such as ("engines", "fetch")."""
    found: dict[tuple[str, ...], set[str]] = {}

    def visit(command: object, path: tuple[str, ...]) -> None:
        for name, inner in getattr(command, "commands", {}).items():
            visit(inner, (*path, name))
        if not hasattr(command, "commands"):
            parameters = getattr(command, "params")  # noqa: B009 - typer's own classes are private
            found[path] = {option for one in parameters for option in one.opts} | {"--help", "-h"}

    visit(get_command(app), ())
    return found


OPTIONS = options_of()


def shown(text: str) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """Each command that is shown with options, and those options."""
    for match in _SHOWN.finditer(text.replace("\\\n", " ")):
        words = match[1].split()
        path = next((tuple(words[:n]) for n in (2, 1) if tuple(words[:n]) in OPTIONS), None)
        options = [word.split("=")[0] for word in words if re.fullmatch(r"--?[a-z][a-z-]*(=.*)?", word)]
        if path is not None and options:
            yield path, options


def test_every_option_that_is_shown_exists() -> None:
    looked_at, unknown = 0, []
    for path in TEXTS:
        for command, options in shown(path.read_text()):
            looked_at += len(options)
            wrong = [option for option in options if option not in OPTIONS[command]]
            unknown += [f"{path}: {' '.join(command)} {option}" for option in wrong]
    assert unknown == []
    assert looked_at > 150


@pytest.mark.parametrize(
    "text",
    [
        "`enginehouse replay --tpot 1`",
        "$ enginehouse builds list \\\n  --limit 5",
        "  enginehouse up --prot=1 # so",
    ],
)
def test_one_that_does_not_exist_is_found(text: str) -> None:
    ((command, (option,)),) = shown(text)
    assert option not in OPTIONS[command]
