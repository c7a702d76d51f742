"""Specs of engines as commands find them: in a file, or by name in the registry."""

from __future__ import annotations

import json
from pathlib import Path

from enginehouse.connection import Connection
from enginehouse.errors import CommandError
from enginehouse.manifests import read_manifests
from enginehouse.objects import fetch
from model_registry.engine_specs import EngineSpec
from model_registry.errors import ManifestErrors
from model_registry.kinds import decode
from model_registry.manifests import parse_manifests


def spec_of_file(path: str, name: str | None) -> EngineSpec:
    """The one EngineSpec of a file, a folder or stdin (`-`), or that called `name`. Raises CommandError."""
    files = [(file.name, file.text) for file in read_manifests([path])]
    try:
        objects = parse_manifests(files)
    except ManifestErrors as error:
        raise CommandError(f"{path} cannot be used", str(error)) from error
    specs = [item for item in objects if isinstance(item, EngineSpec)]
    found = [item for item in specs if name in {None, item.name}]
    if len(found) == 1:
        return placed(found[0])
    named = ", ".join(item.name for item in specs) or "none"
    wanted = "exactly one EngineSpec" if name is None else f"an EngineSpec {name!r}"
    raise CommandError(f"{path} does not hold {wanted}; there are: {named}", "name one: -f FILE NAME")


def placed(spec: EngineSpec) -> EngineSpec:
    """The spec with its checkpoint's whole path, where that is a folder here: steps run elsewhere."""
    folder = Path(spec.checkpoint)
    if folder.is_absolute() or not folder.is_dir():
        return spec
    return spec.model_copy(update={"checkpoint": str(folder.absolute())})


async def spec_of_registry(connection: Connection, name: str) -> EngineSpec:
    """The EngineSpec of that name. Raises ApiError."""
    found = await fetch(connection, "EngineSpec", name)
    spec = decode("EngineSpec", json.dumps(found.items[0]))
    assert isinstance(spec, EngineSpec)
    return placed(spec)
