"""No setting, and no knob of a profile, is there for nothing: each is read somewhere."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from enginehouse.settings import Settings
from model_registry.knobs import Knobs

PACKAGES = (
    "controller", "engine_builder", "enginehouse", "gateway", "inference", "model_registry", "router",
    "telemetry", "tenancy",
)  # fmt: skip


def fields(of: type[BaseModel]) -> Iterator[str]:
    """Names of fields, those of sections within it too."""
    for name, field in of.model_fields.items():
        yield name
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from fields(kind)


@pytest.fixture(scope="module")
def read() -> set[str]:
    """Names of all attributes that are read."""
    found: set[str] = set()
    for path in (path for package in PACKAGES for path in Path(package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                found.add(node.attr)
    return found


@pytest.mark.parametrize("of", [Settings, Knobs])
def test_each_is_read(of: type[BaseModel], read: set[str]) -> None:
    names = set(fields(of))
    assert len(names) > 10
    assert sorted(names - read) == []
