"""Unserved: what takes more than a lane's tensors and is not there yet, and what nobody knows.

Parsing only records it: an OpenAI-HTTP upstream may serve it, so the handler of a Triton lane refuses. What a
lane's tensors decide is not here but in `parameters.py`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.api.errors import ApiError, bad_request

_MAX_NAME_CHARS = 64


@dataclass(frozen=True, slots=True)
class Unsupported:
    """A valid field that a Triton lane cannot serve."""

    param: str
    why: str
    remedy: str = "Remove it."


@dataclass(frozen=True, slots=True)
class Feature:
    """A field that asks for something the Triton lanes lack, unless its value is a neutral one."""

    why: str
    neutral: tuple[Any, ...] = (None,)
    remedy: str = "Remove it."


_FUNCTIONS = "functions were replaced by tools"
_SEND_TOOLS = "Send `tools` and `tool_choice`."

CHAT_FEATURES: Mapping[str, Feature] = {
    "functions": Feature(_FUNCTIONS, (None, []), _SEND_TOOLS),
    "function_call": Feature(_FUNCTIONS, (None, "none", "auto"), _SEND_TOOLS),
}


def unserved_features(raw: Mapping[str, Any], features: Mapping[str, Feature]) -> list[Unsupported]:
    """The fields of `raw` that ask for a feature the Triton lanes lack."""
    asked = raw.keys() & features.keys()
    if not asked:
        return []
    return [
        Unsupported(name, features[name].why, features[name].remedy)
        for name in raw
        if name in asked and _wants(raw[name], features[name])
    ]


def _wants(value: Any, feature: Feature) -> bool:
    return value not in feature.neutral


def refuse_unserved(unsupported: Iterable[Unsupported], unknown: Iterable[str], known: Iterable[str]) -> None:
    """Raise ApiError 400 for the first field that a Triton lane cannot serve or nobody knows."""
    for item in unsupported:
        message = f"`{item.param}` is not supported by this model: {item.why}. {item.remedy}"
        raise bad_request(message, item.param, "unsupported_parameter")
    for name in unknown:
        raise _unknown(name, known)


def _unknown(name: str, known: Iterable[str]) -> ApiError:
    shown = name[:_MAX_NAME_CHARS]
    near = difflib.get_close_matches(shown, list(known), n=1)
    remedy = f"Did you mean `{near[0]}`?" if near else "Remove it."
    return bad_request(f"Unknown parameter: `{shown}`. {remedy}", shown, "unknown_parameter")
