"""What documentation names is there: commands, modules, make targets, settings, variables, metrics, files."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from enginehouse.settings import COMMAND_VARIABLES, Settings
from tests.enginehouse.test_shown_commands import OPTIONS

PAGES = [Path("README.md"), Path("CONTRIBUTING.md"), *sorted(Path("docs").rglob("*.md"))]
TOP = sorted(path.name for path in Path().iterdir() if path.is_dir() and path.name.isidentifier())
_CODE = re.compile(r"```.*?```|`[^`\n]+`|^ {4}\S[^\n]*$", re.DOTALL | re.MULTILINE)
_COMMAND = re.compile(r"(?:^ *|[`$] ?)enginehouse ([a-z][a-z-]*)(?: ([a-z][a-z-]*))?", re.MULTILINE)
_MODULE = re.compile(rf"python -m ((?:{'|'.join(TOP)})[a-z_.]*[a-z])")
_TARGET = re.compile(r"(?:^ *|[`$] ?)make ([a-z][a-z-]*)", re.MULTILINE)
_DOTTED = re.compile(r"`([a-z_]+(?:\.[a-z_0-9]+)+)`")
_VARIABLE = re.compile(r"\bENGINEHOUSE_[A-Z0-9_]*[A-Z0-9]\b")
_METRIC = re.compile(r"\benginehouse_[a-z_]+\b(?!/)")
_PATH = re.compile(rf"(?<![\w/.-])((?:{'|'.join(TOP)})/[\w./-]*\w\.(?:py|md|ya?ml|jsonl?|sh|lua|c|toml))\b")
_LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")
ELSEWHERE = {
    "docs/source/legacy/tensorrt-backend-removal.md",
    "examples/run.py",
    "enginehouse/house-chat-keda.yaml",
    "enginehouse_default",
}
"""Files of TensorRT-LLM, an object in a cluster, a network of Docker's."""


def code_of(page: str) -> Iterator[str]:
    """What is set as code, lines that go on being joined."""
    for match in _CODE.finditer(page):
        yield match[0].replace("\\\n", " ")


def commands(page: str) -> Iterator[str]:
    """Command lines whose command is none."""
    known = OPTIONS.keys() | {path[:1] for path in OPTIONS}
    for match in (match for code in code_of(page) for match in _COMMAND.finditer(code)):
        first, second = match.groups()
        path = (first, second) if second and (first,) not in OPTIONS else (first,)
        if path not in known:
            yield match[0]


def modules(page: str) -> Iterator[str]:
    """Modules to be run that are none."""
    for match in _MODULE.finditer(page):
        path = Path(match[1].replace(".", "/"))
        if not (path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()):
            yield match[0]


def targets(page: str) -> Iterator[str]:
    """Targets that the Makefile does not have."""
    known = set(re.findall(r"^([a-z-]+):", Path("Makefile").read_text(), re.MULTILINE))
    yield from (m[0] for code in code_of(page) for m in _TARGET.finditer(code) if m[1] not in known)


def fields(of: type[BaseModel], before: str = "") -> Iterator[str]:
    """`section.field` of all."""
    for name, field in of.model_fields.items():
        yield before + name
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from fields(kind, f"{before}{name}.")


SETTINGS = frozenset(fields(Settings))


def settings(page: str) -> Iterator[str]:
    """Dotted names of a section's that are neither a setting nor a file, module or something in a module."""
    sections = {name for name in SETTINGS if "." not in name}
    for name in _DOTTED.findall(page):
        path = Path(name.replace(".", "/"))
        there = path.with_suffix(".py"), path.parent.with_suffix(".py"), path
        is_ours = name in SETTINGS or name.endswith(".py") or any(one.exists() for one in there)
        if name.partition(".")[0] in sections and not is_ours:
            yield name


def variables(page: str) -> Iterator[str]:
    """Variables that nothing reads."""
    names = {name.upper().replace(".", "__") for name in SETTINGS}
    known = COMMAND_VARIABLES | {f"ENGINEHOUSE_{name}" for name in names}
    yield from (name for name in _VARIABLE.findall(page) if name.removesuffix("_FILE") not in known)


def metrics(page: str) -> Iterator[str]:
    """Metrics that docs/metrics.md, which is held against the instruments, does not list."""
    listed = set(re.findall(r"^\| `(enginehouse_\w+)`", Path("docs/metrics.md").read_text(), re.MULTILINE))
    known = listed | {f"{name}_{part}" for name in listed for part in ("bucket", "sum", "count")}
    yield from (m[0] for m in _METRIC.finditer(page) if m[0] not in known | ELSEWHERE)


def files(page: str) -> Iterator[str]:
    """Files of ours that are not there."""
    yield from (
        match[1]
        for match in _PATH.finditer(page)
        if match[1] not in ELSEWHERE and not Path(match[1]).is_file()
    )


def links(page: str, folder: Path) -> Iterator[str]:
    """Links of a page in `folder` that lead nowhere."""
    for match in _LINK.finditer(page):
        if not (folder / match[1]).exists():
            yield match[1]


KINDS: dict[str, Callable[[str], Iterable[str]]] = {
    "commands": commands,
    "modules": modules,
    "targets": targets,
    "settings": settings,
    "variables": variables,
    "metrics": metrics,
    "files": files,
}
WRONG = {
    "commands": "    enginehouse rollout begin",
    "modules": "run `python -m bench.nothing --only x`",
    "targets": "`make tea`",
    "settings": "`router.max_attempt` or `router.picking.nothing`",
    "variables": "ENGINEHOUSE_GATEWAY__PROT=1",
    "metrics": "rate(enginehouse_request_total[5m])",
    "files": "see docs/quueing.md",
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_named_exists(kind: str) -> None:
    wrong = [f"{page}: {name}" for page in PAGES for name in KINDS[kind](page.read_text())]
    assert wrong == []


@pytest.mark.parametrize("kind", KINDS)
def test_what_does_not_exist_is_found(kind: str) -> None:
    assert list(KINDS[kind](WRONG[kind]))


def test_links_lead_somewhere() -> None:
    wrong = [f"{page}: {link}" for page in PAGES for link in links(page.read_text(), page.parent)]
    assert wrong == []
    assert list(links("[a](decisions/none.md)", Path("docs"))) == ["decisions/none.md"]
