"""The manifest of a local stack: its models and deployments as the YAML that `enginehouse apply` takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from enginehouse.local.model_servers import Placement, weights_folder
from enginehouse.local.stack import DeploymentEntry, LocalStack, ModelEntry
from model_registry.entities import Deployment, Model

HEAD = "# Written by `enginehouse up` at every start; changes to it are lost.\n"


def stack_manifest(stack: LocalStack, place: Callable[[DeploymentEntry], Placement]) -> str:
    """YAML documents, models first; `place` says where each deployment's engine listens."""
    documents = [_document(_model(entry)) for entry in stack.models]
    documents += [_document(_deployment(entry, place(entry))) for entry in stack.deployments]
    return HEAD + yaml.safe_dump_all(documents, sort_keys=False, allow_unicode=True)


def applied_names(path: Path) -> set[tuple[str, str]]:
    """(kind, name) of everything in the manifest of an earlier run; empty when there is none."""
    if not path.exists():
        return set()
    documents: Any = yaml.safe_load_all(path.read_text())
    return {(document["kind"], document["name"]) for document in documents}


def _model(entry: ModelEntry) -> Model:
    return Model(
        name=entry.name,
        context_length=entry.context_length,
        tokenizer=str(weights_folder(entry.weights)),
        aliases=entry.aliases,
        default_profile=entry.default_profile,
        description=entry.description,
    )


def _deployment(entry: DeploymentEntry, placement: Placement) -> Deployment:
    return Deployment.model_validate(
        {
            "name": entry.name,
            "model": entry.model,
            "profile": entry.profile,
            "lane": placement.lane,
            "target": placement.target,
            "servers": (placement.server,),
            "max_concurrency": entry.max_concurrency,
        }
    )


def _document(item: Model | Deployment) -> Mapping[str, Any]:
    return {"kind": type(item).__name__, **item.model_dump(mode="json", exclude_defaults=True)}
