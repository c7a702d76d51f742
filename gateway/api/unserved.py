"""Unserved: what OpenAI's API knows and the Triton lanes of this version do not, and what nobody knows.

Parsing only records it: an OpenAI-HTTP upstream may serve it, so the handler of a Triton lane refuses.
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


@dataclass(frozen=True, slots=True)
class Feature:
    """A field that asks for something the Triton lanes lack, unless its value is a neutral one."""

    why: str
    neutral: tuple[Any, ...] = (None,)


_TOOLS = "tool calls are not served here"
_AUDIO = "only text is served here"

CHAT_FEATURES: Mapping[str, Feature] = {
    "tools": Feature(_TOOLS, (None, [])),
    "tool_choice": Feature(_TOOLS, (None, "none", "auto")),
    "functions": Feature(_TOOLS, (None, [])),
    "function_call": Feature(_TOOLS, (None, "none", "auto")),
    "response_format": Feature("guided output is not served here", (None, {"type": "text"})),
    "logit_bias": Feature("token biases are not served here", (None, {})),
    "modalities": Feature(_AUDIO, (None, ["text"])),
    "audio": Feature(_AUDIO),
    "prediction": Feature("predicted output is not served here"),
    "web_search_options": Feature("web search is not served here"),
    "moderation": Feature("moderation is not served here"),
    "reasoning_effort": Feature("reasoning effort cannot be set here", (None, "none")),
    "verbosity": Feature("verbosity cannot be set here", (None, "medium")),
}

COMPLETION_FEATURES: Mapping[str, Feature] = {
    "logit_bias": CHAT_FEATURES["logit_bias"],
    "echo": Feature("the prompt is not echoed here", (None, False)),
    "suffix": Feature("text after the answer cannot be given here", (None, "")),
}


def unserved_features(raw: Mapping[str, Any], features: Mapping[str, Feature]) -> list[Unsupported]:
    """The fields of `raw` that ask for a feature the Triton lanes lack."""
    asked = raw.keys() & features.keys()
    if not asked:
        return []
    return [
        Unsupported(name, features[name].why)
        for name in raw
        if name in asked and _wants(raw[name], features[name])
    ]


def _wants(value: Any, feature: Feature) -> bool:
    return value not in feature.neutral


def refuse_unserved(unsupported: Iterable[Unsupported], unknown: Iterable[str], known: Iterable[str]) -> None:
    """Raise ApiError 400 for the first field that a Triton lane cannot serve or nobody knows."""
    for item in unsupported:
        message = f"`{item.param}` is not supported by this model: {item.why}. Remove it."
        raise bad_request(message, item.param, "unsupported_parameter")
    for name in unknown:
        raise _unknown(name, known)


def _unknown(name: str, known: Iterable[str]) -> ApiError:
    shown = name[:_MAX_NAME_CHARS]
    near = difflib.get_close_matches(shown, list(known), n=1)
    remedy = f"Did you mean `{near[0]}`?" if near else "Remove it."
    return bad_request(f"Unknown parameter: `{shown}`. {remedy}", shown, "unknown_parameter")
