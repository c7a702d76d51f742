"""Unknown keys of bodies that are translated: what would be lost is refused, with its path."""

from __future__ import annotations

import difflib
from typing import Any

from msgspec import Struct

from gateway.api.errors import bad_request

_MAX_NAME_CHARS = 64


def refuse_unknown_keys(raw: dict[str, Any], known: type[Struct], place: str = "") -> None:
    """Raise ApiError 400 for the first key of `raw` that is set and that `known` has no field for."""
    fields = known.__struct_encode_fields__
    for key, value in raw.items():
        if key not in fields and value is not None:
            shown = key[:_MAX_NAME_CHARS]
            near = difflib.get_close_matches(shown, fields, n=1)
            path = f"{place}.{shown}" if place else shown
            remedy = f"Did you mean `{near[0]}`?" if near else "Remove it."
            raise bad_request(f"Unknown parameter: `{path}`. {remedy}", path, "unknown_parameter")
