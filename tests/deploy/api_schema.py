"""The schemas of the Kubernetes API, by kubernetes-asyncio's models, made from its OpenAPI description.

Strict: a field that the API does not know is a mistake, as `kubectl apply --validate=strict` has it. What API
servers check beyond types (patterns, ranges, words) is not in that description.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from kubernetes_asyncio.client import models

PLAIN = {"str": str, "int": int, "bool": bool, "float": (int, float), "datetime": str, "object": object}
_LIST, _MAP = re.compile(r"list\[(.*)\]"), re.compile(r"dict\(str, (.*)\)")


def mistakes(document: Any) -> list[str]:
    """What is wrong with a whole object, by path."""
    version = document["apiVersion"].rpartition("/")[2]
    return list(wrong(f"{version.capitalize()}{document['kind']}", document, document["kind"]))


def wrong(kind: str, value: Any, path: str) -> Iterator[str]:
    """What is wrong with a value of the type `kind`."""
    if found := _LIST.fullmatch(kind):
        yield from (
            _each(found[1], enumerate(value), path) if isinstance(value, list) else [f"{path}: no list"]
        )
    elif found := _MAP.fullmatch(kind):
        yield from _each(found[1], value.items(), path) if isinstance(value, dict) else [f"{path}: no map"]
    elif kind in PLAIN:
        is_bool = isinstance(value, bool)
        if not isinstance(value, PLAIN[kind]) or (is_bool and kind not in {"bool", "object"}):
            yield f"{path}: {value!r} is no {kind}"
    else:
        yield from _object(getattr(models, kind), value, path)


def _each(kind: str, items: Any, path: str) -> Iterator[str]:
    for key, item in items:
        yield from wrong(kind, item, f"{path}.{key}")


def _object(model: Any, value: Any, path: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{path}: no mapping"
        return
    attributes = {name: attribute for attribute, name in model.attribute_map.items()}
    known = {attributes[name]: item for name, item in value.items() if name in attributes}
    yield from (f"{path}.{name}: unknown field" for name in value if name not in attributes)
    try:
        model(**known)
    except ValueError as error:  # a required field is missing
        yield f"{path}: {error}"
    for attribute, item in known.items():
        yield from wrong(model.openapi_types[attribute], item, f"{path}.{model.attribute_map[attribute]}")
