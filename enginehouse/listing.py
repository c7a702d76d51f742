"""Listing: how objects of the registry are shown, as a table, as manifests or as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from enginehouse.card_listing import is_card, one_line
from enginehouse.objects import Objects
from enginehouse.scaling_listing import one_cell
from model_registry.kinds import decode
from model_registry.manifests import to_yaml

COLUMNS: Mapping[str, Sequence[str]] = {
    "Model": ("name", "context_length", "default_profile", "aliases", "description"),
    "Adapter": ("name", "model", "path", "lora_name", "aliases", "restricted", "description"),
    "Deployment": (
        "name",
        "model",
        "profile",
        "lane",
        "target",
        "engine",
        "servers",
        "scaling",
        "labels",
        "card",
        "learned",
    ),
    "Endpoint": (
        "name",
        "model",
        "profile",
        "lane",
        "target",
        "max_concurrency",
        "state",
        "reason",
        "card",
        "learned",
    ),
    "EngineSpec": ("name", "model", "checkpoint", "gpu_class", "lane", "version", "profile", "precision"),
    "Engine": (
        "name",
        "model",
        "lane",
        "runtime",
        "version",
        "gpu_class",
        "gpus",
        "precision",
        "preflight",
        "quality",
        "url",
        "card",
    ),
    "Profile": ("name", "policy", "order", "queue_limit", "max_wait_s", "ttft_target_s", "window", "hedge"),
    "Policy": (
        "name",
        "allowed_models",
        "default_profile",
        "weight",
        "priority",
        "deadline_s",
        "description",
    ),
    "Tenant": ("name", "policy", "weight", "allowed_models", "disabled"),
    "ApiKey": ("name", "tenant", "models", "profiles", "expires_at", "admin", "disabled", "revoked"),
    "Rollout": ("name", "model", "stable", "candidate", "wanted", "run"),
    "Pool": ("name", "actuator", "gpu_class", "max_replicas", "cost_per_hour", "labels", "description"),
    "Replica": ("name", "state", "server", "handle", "cold_start_s", "memory_mib", "reason"),
    "ScalingStatus": (
        "name",
        "pool",
        "wanted",
        "ready",
        "starting",
        "draining",
        "cold_start_s",
        "reason",
    ),
    "Drain": ("name", "server", "endpoint", "reason"),
    "RolloutStatus": ("name", "phase", "step", "share", "samples", "needed", "exposed", "reason"),
}
RELATED: Mapping[str, Mapping[str, str]] = {
    "Model": {"Adapter": "model", "Deployment": "model", "Endpoint": "model"},
    "Deployment": {"Endpoint": "deployment", "Replica": "deployment", "ScalingStatus": "name"},
    "Pool": {"Replica": "pool", "ScalingStatus": "pool"},
    "EngineSpec": {"Engine": "spec"},
    "Engine": {"Deployment": "engine"},
    "Profile": {"Deployment": "profile"},
    "Policy": {"Tenant": "policy"},
    "Tenant": {"ApiKey": "tenant"},
    "Rollout": {"RolloutStatus": "name"},
}
"""Kind -> kinds that name it, and the field in which they do."""


def as_json(objects: Objects) -> str:
    """The objects with every field."""
    return json.dumps(objects.items, indent=2)


def as_yaml(objects: Objects) -> str:
    """The objects' manifests, as `enginehouse apply` takes them."""
    return to_yaml(decode(objects.kind, json.dumps(item)) for item in objects.items).rstrip()


def describe(objects: Objects, related: Sequence[Objects]) -> str:
    """One object with all its fields, and the objects that name it."""
    item = objects.items[0]
    shown = yaml.safe_dump(_known(item), sort_keys=False, allow_unicode=True)
    lines = [f"kind: {objects.kind}", shown.rstrip()]
    for others in related:
        field = RELATED[objects.kind][others.kind]
        naming = [_summary(others.kind, other) for other in others.items if other[field] == item["name"]]
        lines += [f"{others.kind.lower()}s:", *(naming or ["  none"])]
    return "\n".join(lines)


def _known(value: Any) -> Any:
    """`value` without what is empty; a tensor, `[dtype, shape]`, in one line."""
    match value:
        case dict():
            return {name: _known(inner) for name, inner in value.items() if inner not in (None, [], {})}
        case [str(dtype), [*shape]]:
            return f"{dtype} {shape}"
        case list():
            return [_known(inner) for inner in value]
    return value


def _summary(kind: str, item: Mapping[str, Any]) -> str:
    shown = (
        f"{name}={_cell(item[name])}"
        for name in COLUMNS[kind][1:]
        if name != "card" and item.get(name) not in (None, [], {}, False)
    )
    return f"  {item['name']}  {' '.join(shown)}"


def as_table(objects: Objects) -> RenderableType:
    """One row an object: its whole name, which `describe` takes, and the main fields that any has."""
    if not objects.items:
        return Text(f"no {objects.kind.lower()}s")
    columns = [name for name in COLUMNS[objects.kind] if any(_cell(item.get(name)) for item in objects.items)]
    table = Table(box=None, pad_edge=False)
    for column in columns:
        label = column.replace("_", "\n")
        table.add_column(label, no_wrap=column == "name", overflow="fold")
    for item in objects.items:
        table.add_row(*(_cell(item.get(column)) for column in columns))
    return table


def _cell(value: Any) -> str:
    if value is None or value is False:
        return ""
    if value is True:
        return "yes"
    if isinstance(value, dict) and "passed" in value:
        return "passed" if value["passed"] else "failed"
    if is_card(value):
        return one_line(value)
    if isinstance(value, dict) and (told := one_cell(value)) is not None:
        return told
    if isinstance(value, dict):
        return ", ".join(f"{name}={inner}" for name, inner in value.items())
    if isinstance(value, list):
        return ", ".join(part["http"] if isinstance(part, dict) else str(part) for part in value)
    return str(value)
