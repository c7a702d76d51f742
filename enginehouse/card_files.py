"""Card files: engines' own figures, goodput cards and Deployments with one, for `--card`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from enginehouse.errors import CommandError
from enginehouse.written import write_text
from model_registry.cards import GoodputCard
from model_registry.entities import Deployment
from model_registry.manifests import to_yaml
from router.replay.engine import EngineCard, engine_card

Card = TypeVar("Card", bound=BaseModel)


def read_engine_card(path: Path) -> EngineCard:
    """The engine that a file speaks of. Raises CommandError naming the field and what may stand there."""
    try:
        documents = [one for one in yaml.safe_load_all(path.read_text(encoding="utf-8")) if one is not None]
    except OSError as error:
        raise CommandError(f"--card {path}: {error.strerror}.", "Name a file that can be read.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CommandError(f"--card {path}: is not YAML: {error}.", _fields(EngineCard)) from error
    if not any(isinstance(one, Mapping) and "kind" in one for one in documents):
        fields = documents[0] if documents else {}
        if isinstance(fields, Mapping) and fields.keys() == {"card"}:
            fields = fields["card"]
        if _is_goodput(fields):
            return engine_card(_checked(path, GoodputCard, fields))
        return _checked(path, EngineCard, fields)
    cards = list(_of_deployments(documents))
    if len(cards) != 1:
        found = "no Deployment with a card" if not cards else f"{len(cards)} Deployments with cards"
        raise CommandError(f"--card {path}: has {found}.", "Name a file with one, or with the card alone.")
    return engine_card(_checked(path, GoodputCard, cards[0]))


def _is_goodput(fields: object) -> bool:
    """Whether somebody meant a goodput card: no engine's own figures have these names."""
    own = GoodputCard.model_fields.keys() - EngineCard.model_fields.keys()
    return isinstance(fields, Mapping) and not own.isdisjoint(fields)


def _of_deployments(documents: list[Any]) -> Iterator[Any]:
    for one in documents:
        spec = one.get("spec", one) if isinstance(one, Mapping) else None
        if isinstance(spec, Mapping) and one.get("kind") == "Deployment" and "card" in spec:
            yield spec["card"]


def _checked(path: Path, wanted: type[Card], fields: object) -> Card:
    try:
        return wanted.model_validate(fields)
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, one['loc'])) or 'the whole'}: {one['msg']}" for one in error.errors()
        )
        raise CommandError(f"--card {path}: {wrong}.", _fields(wanted)) from error


def _fields(wanted: type[BaseModel]) -> str:
    return f"Its fields: {', '.join(wanted.model_fields)}."


def card_yaml(card: GoodputCard) -> str:
    """A `card:` section, as it stands in a Deployment's spec."""
    fields = card.model_dump(mode="json", exclude_none=True)
    return yaml.safe_dump({"card": fields}, sort_keys=False, allow_unicode=True).rstrip()


def write_manifest(deployment: Deployment, path: Path | None) -> None:
    """To a file, or print it. Raises CommandError where the file cannot be written."""
    text = to_yaml([deployment])
    if path is None:
        sys.stdout.write(text)
        return
    write_text(path, text, "--out")
