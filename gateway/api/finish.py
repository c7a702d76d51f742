"""Finish reasons as OpenAI's API names them: the engines' own, and those that only the gateway can tell."""

from __future__ import annotations

from typing import Literal

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]
