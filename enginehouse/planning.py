"""What `enginehouse plan` does: reads specs, plans them, and shows, draws and writes what came of it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError
from rich.console import Console

from engine_builder.checkpoint import Checkpoint
from engine_builder.errors import BuilderError
from engine_builder.plan import KernelTables, PerformanceModel, Plan, Roofline, picture, plan, resolve
from engine_builder.plan.kernel_tables import installed
from enginehouse.build_specs import placed
from enginehouse.console import output
from enginehouse.errors import CommandError
from enginehouse.manifests import read_manifests
from enginehouse.plan_listing import as_json, listing
from enginehouse.written import write_text
from model_registry.engine_specs import EngineSpec
from model_registry.errors import ManifestErrors
from model_registry.manifests import parse_manifests, to_yaml


class Asked(NamedTuple):
    """The command's options."""

    files: tuple[str, ...]
    checkpoint: str | None
    fields: Mapping[str, Any]
    workload: Mapping[str, Any]
    most_gpus: int
    by: str
    out: Path | None
    picture: Path | None
    as_json: bool


def show(asked: Asked) -> None:
    """Plan, and print. Raises CommandError."""
    specs = [_with_options(spec, asked) for spec in _specs(asked)]
    if asked.picture is not None and len(specs) > 1:
        raise CommandError(f"--picture draws one plan; there are {len(specs)}.", "Name a file with one spec.")
    model = _model(asked.by)
    try:
        plans = [_plan(spec, model, asked.most_gpus) for spec in specs]
        resolved = [resolve(one.spec, one.checkpoint, one.model, most_gpus=asked.most_gpus) for one in plans]
    except BuilderError as error:
        raise CommandError(str(error), error.remedy or None) from error
    if asked.as_json:
        told = [as_json(one, spec) for one, spec in zip(plans, resolved, strict=True)]
        output().print_json(json.dumps(told[0] if len(told) == 1 else told))
    else:
        for one in plans:
            for part in listing(one):
                output().print(part)
    if asked.picture is not None:
        write_text(asked.picture, picture(plans[0]), "--picture")
    if asked.out is not None:
        write_text(asked.out, to_yaml(resolved), "--out")


def _plan(spec: EngineSpec, model: PerformanceModel, most_gpus: int) -> Plan:
    checkpoint = Checkpoint.open(spec.checkpoint)
    with Console(stderr=True).status(f"planning {spec.name}"):
        return plan(spec, checkpoint, model, most_gpus=most_gpus)


def _specs(asked: Asked) -> list[EngineSpec]:
    if (asked.checkpoint is None) == (not asked.files):
        raise CommandError("name either --file or --checkpoint", "enginehouse plan --help has examples.")
    if asked.checkpoint is not None:
        if "gpu_class" not in asked.fields:
            raise CommandError("--checkpoint needs --gpu-class", "For example --gpu-class h100-sxm.")
        spec = _checked({"name": _name(asked.checkpoint), "checkpoint": asked.checkpoint, **asked.fields})
        return [placed(spec)]
    files = [(file.name, file.text) for file in read_manifests(asked.files)]
    try:
        found = [one for one in parse_manifests(files) if isinstance(one, EngineSpec)]
    except ManifestErrors as error:
        raise CommandError(str(error)) from error
    if not found:
        raise CommandError(f"no EngineSpec in {', '.join(asked.files)}", "examples/engines has some.")
    return found


def _with_options(spec: EngineSpec, asked: Asked) -> EngineSpec:
    """Options beside a manifest replace what it says."""
    workload = {**spec.workload.model_dump(exclude_unset=True), **asked.workload}
    return _checked({**spec.model_dump(exclude_unset=True), **asked.fields, "workload": workload})


def _checked(fields: Mapping[str, Any]) -> EngineSpec:
    try:
        return EngineSpec.model_validate(fields)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise CommandError(wrong, "enginehouse plan --help says what may stand there.") from error


def _name(checkpoint: str) -> str:
    """A spec's name after its checkpoint's folder."""
    words = re.sub(r"[^a-z0-9.]+", "-", Path(checkpoint.rstrip("/")).name.lower()).strip("-.")
    return words or "engine"


def _model(by: str) -> PerformanceModel:
    if by == "roofline" or (by == "auto" and not installed()):
        return Roofline()
    try:
        with Console(stderr=True).status("reading kernel tables"):
            return KernelTables.load()
    except BuilderError as error:
        raise CommandError(str(error), error.remedy) from error
