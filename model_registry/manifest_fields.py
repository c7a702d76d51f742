"""Manifest fields: what may stand in a manifest of each kind, and what is wrong with what stands there."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from model_registry.entities import Profile
from model_registry.kinds import DECLARED, KINDS, kind_of
from model_registry.knobs import Knobs
from model_registry.snapshot import Stored
from model_registry.yaml_source import Path, lookup

SET_BY_REGISTRY = {"Model": frozenset({"created"}), "Adapter": frozenset({"created"})}
KEY_FROM_ENV = "key_from_env"


def written(item: Stored) -> dict[str, Any]:
    """Fields as a manifest has them: without those that have their default or that the registry sets.

    What a profile leaves out depends on its name (`model_registry.entities.Profile`).
    """
    hidden = SET_BY_REGISTRY.get(kind_of(item), frozenset()) | {"name"}
    if isinstance(item, Profile):
        untouched = Profile(name=item.name)
        hidden |= {field for field in Knobs.model_fields if getattr(item, field) == getattr(untouched, field)}
        return item.model_dump(mode="json", exclude=set(hidden))
    return item.model_dump(mode="json", exclude_defaults=True, exclude=set(hidden))


class Mistake(NamedTuple):
    """What is wrong at a path below the fields."""

    path: Path
    message: str
    allowed: tuple[str, ...] | None = None


def known_fields(kind: str) -> tuple[str, ...]:
    """Fields that a manifest of `kind` may have."""
    fields = set(KINDS[kind].model_fields) - SET_BY_REGISTRY.get(kind, frozenset())
    return tuple(sorted(fields | ({KEY_FROM_ENV} if kind == "ApiKey" else set())))


def kind_mistake(kind: object) -> Mistake | None:
    """What is wrong with a manifest's kind."""
    if isinstance(kind, str) and kind in DECLARED:
        return None
    if isinstance(kind, str) and kind in KINDS:
        return Mistake(("kind",), f"{kind} is registered by the controller and cannot be applied", DECLARED)
    return Mistake(("kind",), f"unknown kind {kind!r}" + suggestion(str(kind), DECLARED), DECLARED)


def mistakes(kind: str, fields: dict[str, Any], error: ValidationError) -> list[Mistake]:
    """One mistake per field, from pydantic's, which has one per member of a union.

    A list is not said to be too short because its items are wrong.
    """
    found: dict[Path, Mistake] = {}
    for details in error.errors(include_url=False, include_context=False):
        mistake = _mistake(kind, fields, details)
        found.setdefault(mistake.path, mistake)
    around = {path[:length] for path in found for length in range(len(path))}
    return [mistake for path, mistake in found.items() if path not in around]


_MAY_BE_ABSENT = {"missing", "either"}
"""Types of errors about fields that need not be there: one is missing, or one of two."""


def unknown_field(path: Path, known: Iterable[str]) -> Mistake:
    """A field that does not exist."""
    names = tuple(sorted(known))
    return Mistake(path, f"unknown field{suggestion(_snake(str(path[-1])), names)}", names)


def suggestion(given: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` when something known is near."""
    names = {name.lower(): name for name in known}
    near = difflib.get_close_matches(given.lower(), names, n=1)
    return f"; did you mean {names[near[0]]!r}?" if near else ""


def _mistake(kind: str, fields: dict[str, Any], details: ErrorDetails) -> Mistake:
    path = _existing(kind, fields, details)
    match details["type"]:
        case "extra_forbidden":
            known = known_fields(kind) if len(path) == 1 else _model_at(kind, path[:-1], fields).model_fields
            return unknown_field(path, known)
        case "missing":
            return Mistake(path, "is required", allowed_values(kind, path, fields))
        case "union_tag_invalid" | "union_tag_not_found":
            return _wrong_tag(kind, fields, path)
        case "model_type" | "model_attributes_type":
            return Mistake(path, f"must be a mapping, not {details['input']!r:.60}")
        case "either":
            return Mistake(path, details["msg"])
        case "tuple_type":
            return Mistake(path, "must be a list")
        case "too_short":
            return Mistake(path, "must have at least one item")
        case "string_type":
            return Mistake(path, f"must be text, not {details['input']!r:.60}; put it in quotes")
        case "string_pattern_mismatch":
            return Mistake(path, f"{details['input']!r:.160} {_description(kind, path, fields)}")
    allowed = allowed_values(kind, path, fields)
    if allowed and details["input"] not in allowed:
        return Mistake(path, f"{details['input']!r:.60} is not allowed" + _near(details, allowed), allowed)
    return Mistake(path, f"{_lower_first(details['msg'])}, not {details['input']!r:.60}")


def _near(details: ErrorDetails, allowed: tuple[str, ...]) -> str:
    return suggestion(str(details["input"]), allowed)


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


def _wrong_tag(kind: str, fields: dict[str, Any], path: Path) -> Mistake:
    """Of a union whose members are told apart by one field: that field is missing, or names no member."""
    union = _field_at(kind, path, fields)
    assert union is not None
    name = str(union.discriminator)
    tags = tuple(tag for member in _models(union.annotation) for tag in _tags(member, name))
    given = lookup(fields, path).get(name)
    wrong = "is required" if given is None else f"{given!r:.60} is not allowed" + suggestion(str(given), tags)
    return Mistake((*path, name), wrong, tags)


def _existing(kind: str, fields: dict[str, Any], details: ErrorDetails) -> Path:
    """pydantic's location without what it adds for members of unions."""
    path: Path = ()
    for part in details["loc"]:
        try:
            lookup(fields, (*path, part))
        except KeyError:
            if part == _tag(kind, path, fields):
                continue
            return (*path, part) if details["type"] in _MAY_BE_ABSENT else path
        path = (*path, part)
    return path


def _tag(kind: str, path: Path, fields: dict[str, Any]) -> Any:
    """Which member of the union at `path` its fields name; None where there is no such union."""
    union = _field_at(kind, path, fields)
    name = None if union is None else union.discriminator
    return lookup(fields, (*path, name)) if isinstance(name, str) else None


def _description(kind: str, path: Path, fields: dict[str, Any]) -> str:
    """What a text must look like: in words where its type says them, else its pattern."""
    field = _field_at(kind, path, fields)
    if field is None:
        return "is not of the right form"
    about = [field, *field.metadata, *_metadata(field.annotation)]
    words = [m.description for m in about if getattr(m, "description", None)]
    patterns = [m.pattern for m in about if getattr(m, "pattern", None)]
    return f"must be {words[0]}" if words else f"does not match {patterns[0] if patterns else 'its pattern'}"


def _metadata(annotation: Any) -> Iterator[Any]:
    if typing.get_origin(annotation) is typing.Annotated:
        yield from typing.get_args(annotation)[1:]
    for part in typing.get_args(annotation):
        yield from _metadata(part)


def allowed_values(kind: str, path: Path, fields: dict[str, Any]) -> tuple[str, ...] | None:
    """The words that may stand at `path`, where it takes one of a few."""
    names = [part for part in path if isinstance(part, str)]
    field = _model_at(kind, path[:-1], fields).model_fields.get(names[-1]) if names else None
    return tuple(_literals(field.annotation)) or None if field is not None else None


def _literals(annotation: Any) -> list[str]:
    if typing.get_origin(annotation) is typing.Literal:
        return [str(value) for value in typing.get_args(annotation)]
    return [word for part in typing.get_args(annotation) for word in _literals(part)]


def _field_at(kind: str, path: Path, fields: dict[str, Any]) -> FieldInfo | None:
    return _model_at(kind, path[:-1], fields).model_fields.get(str(path[-1])) if path else None


def _model_at(kind: str, path: Path, fields: dict[str, Any]) -> type[BaseModel]:
    """The model whose fields stand at `path`: of a union, the member that `fields` name there."""
    model: type[BaseModel] = KINDS[kind]
    for length, part in enumerate(path, 1):
        if isinstance(part, str) and part in model.model_fields:
            field = model.model_fields[part]
            members = list(_models(field.annotation))
            if isinstance(name := field.discriminator, str):
                tag = lookup(fields, (*path[:length], name))
                members = [member for member in members if tag in _tags(member, name)]
            model = next(iter(members), model)
    return model


def _tags(member: type[BaseModel], name: str) -> list[str]:
    return _literals(member.model_fields[name].annotation)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in typing.get_args(annotation):
        yield from _models(part)


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
