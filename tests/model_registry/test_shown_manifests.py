"""Manifests that pages and examples show are taken as they stand, but for what they refer to elsewhere."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from model_registry.errors import ManifestErrors
from model_registry.manifests import key_variables, parse_manifests

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(r"^```yaml\n((?:.*\n)*?)```|((?:^    .*\n|^\n(?=    ))+)", re.MULTILINE)
_ELSEWHERE = "neither in these files nor in the registry"


def manifests(page: str) -> Iterator[str]:
    """Blocks of YAML that are objects of ours."""
    for fenced, indented in _BLOCK.findall(page):
        text = fenced or textwrap.dedent(indented).lstrip("\n")
        if re.match(r"(apiVersion: enginehouse/|kind: [A-Z])", text):
            yield text


def mistakes(name: str, text: str) -> list[str]:
    """What is wrong with a manifest by itself."""
    files = [(name, text)]
    try:
        parse_manifests(files, key_hashes=dict.fromkeys(key_variables(files), "ab" * 32))
    except ManifestErrors as errors:
        return [str(error) for error in errors.errors if _ELSEWHERE not in error.message]
    return []


SHOWN = [(page.name, text) for page in PAGES for text in manifests(page.read_text("utf-8"))]
FILES = [(path.name, path.read_text("utf-8")) for path in sorted((ROOT / "examples").rglob("*.yaml"))]


@pytest.mark.parametrize(("name", "text"), [*SHOWN, *((n, t) for n, t in FILES if "\nkind: " in f"\n{t}")])
def test_what_is_shown_is_taken(name: str, text: str) -> None:
    assert mistakes(name, text) == []


def test_manifests_of_both_notations_are_found() -> None:
    assert len(SHOWN) >= 13
    page = "```yaml\nkind: Model\nname: a\n```\n\ntext\n\n    kind: Model\n    name: b\n"
    assert [text.splitlines()[1] for text in manifests(page)] == ["name: a", "name: b"]


def test_a_field_that_does_not_exist_is_found() -> None:
    (mistake,) = mistakes("page", "kind: Deployment\nname: d\nmodel: m\nservers: []\nprot: 1\n")[-1:]
    assert "prot" in mistake
