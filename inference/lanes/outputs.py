"""Outputs of one Triton response: scalar or list, number or number in a string."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from inference.classify import classify_error
from inference.errors import InferenceError, ProtocolError
from inference.request import EngineTimes

outputs_of = msgspec.json.Decoder(dict[str, Any]).decode
"""A response's outputs, or `{"error": text}`, of its JSON. Raises what msgspec raises."""


def number(outputs: Mapping[str, Any], name: str) -> int | None:
    """A count or time; None where absent, 0 where it is less. `llmapi` models send them as strings.

    Raises ProtocolError when it is no number.
    """
    value = outputs.get(name)
    if value.__class__ is list:
        value = value[0] if value else None
    if value is None:
        return None
    if value.__class__ is int:
        return max(0, value)
    try:
        return max(0, int(float(value)))
    except (TypeError, ValueError, OverflowError) as error:
        raise ProtocolError(f"output {name} should be a number and is {str(value)[:40]!r}") from error


def text(outputs: Mapping[str, Any], name: str) -> str | None:
    """A text; None where absent. Raises ProtocolError when it is none."""
    value = outputs.get(name)
    if value.__class__ is list:
        value = value[0] if value else None
    if value is None or isinstance(value, str):
        return value
    raise ProtocolError(f"output {name} should be text and is {str(value)[:40]!r}")


def told_error(outputs: Mapping[str, Any], expected: str) -> InferenceError:
    """What a response without the output `expected` says went wrong. Raises ProtocolError: nothing."""
    if "error" not in outputs:
        raise ProtocolError(f"a response without {expected}: {', '.join(outputs)[:80] or 'nothing'}")
    return classify_error(200, str(outputs["error"]))


def is_finished(outputs: Mapping[str, Any]) -> bool:
    """Whether the engine's metrics say that this was its last response.

    The engine sets `last_token_time_ns` when it finishes a request; before that it is 0 or absent.
    """
    return bool(number(outputs, "last_token_time_ns"))


def engine_times(outputs: Mapping[str, Any]) -> EngineTimes | None:
    """What the metrics of an answer's last response say of its way through the engine.

    None where an instant is missing, 0 (the engine has not set it) or before the one that it must follow:
    such a figure would be worse than none. The instants are the engine's own clock's, so that only what lies
    between them means anything.
    """
    arrival = number(outputs, "arrival_time_ns")
    if not arrival:
        return None
    scheduled = number(outputs, "first_scheduled_time_ns")
    first = number(outputs, "first_token_time_ns")
    last = number(outputs, "last_token_time_ns")
    if not scheduled or not first or not last or not arrival <= scheduled <= first <= last:
        return None
    return EngineTimes((scheduled - arrival) / 1e9, (first - scheduled) / 1e9, (last - first) / 1e9)


def cached_tokens(
    outputs: Mapping[str, Any], reused: str, tokens_per_block: int | None, prompt_tokens: int | None
) -> int | None:
    """Prompt tokens that came from the KV cache, by its count of reused blocks."""
    blocks = number(outputs, reused)
    if blocks is None or tokens_per_block is None:
        return None
    tokens = blocks * tokens_per_block
    return tokens if prompt_tokens is None else min(tokens, prompt_tokens)
