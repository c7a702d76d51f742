"""Models beside the demo's own, on the same engines, whose answers are taken apart by other parsers."""

from __future__ import annotations

from typing import Any

THINKING = {
    "house-thinks": "house-chat-latency",
    "yard-thinks": "yard-chat",
    "kiosk-thinks": "kiosk-chat",
    "depot-thinks": "depot-chat",
}
"""Model -> the demo's deployment that it shares an engine with."""
FAMILIES = ("llama3_json", "mistral", "pythonic")
PLAIN = "house-plain"
"""A model without any parser."""


def family_model(family: str) -> str:
    return f"house-{family.replace('_', '-')}"


def add_parsed_models(stack: dict[str, Any]) -> None:
    """Add them to a stack as YAML has it."""
    for model, deployment in THINKING.items():
        _add(stack, model, deployment, tool_parser="hermes", reasoning_parser="qwen3")
    for family in FAMILIES:
        _add(stack, family_model(family), "house-chat-latency", tool_parser=family)
    _add(stack, PLAIN, "house-chat-latency")


def _add(stack: dict[str, Any], name: str, deployment: str, **parsers: str) -> None:
    shared = next(item for item in stack["deployments"] if item["name"] == deployment)
    weights = next(item["weights"] for item in stack["models"] if item["name"] == shared["model"])
    stack["models"] += ({"name": name, "weights": weights, **parsers},)
    added = {"name": name, "model": name, "profile": "balanced"}
    stack["deployments"] += ({**shared, **added},)
