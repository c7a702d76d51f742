"""Tool parsers: one for each form in which models write tool calls, by the names that vLLM gave them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import choices
from string import ascii_letters, digits
from typing import NamedTuple

from gateway.streaming.tool_parsers import hermes, llama3_json, mistral, pythonic
from gateway.streaming.tool_parsers.base import ToolParser
from model_registry.entities import ToolParserName


class Family(NamedTuple):
    """How the models of one family call tools."""

    parser: Callable[[frozenset[str], Callable[[], str]], ToolParser]
    marks: tuple[str, ...]
    """Texts that may be special tokens, and which the parser wants to see."""
    make_id: Callable[[], str]


def _openai_id() -> str:
    return "call_" + "".join(choices(ascii_letters + digits, k=24))


def _mistral_id() -> str:
    return "".join(choices(ascii_letters + digits, k=mistral.ID_CHARACTERS))


FAMILIES: Mapping[ToolParserName, Family] = {
    "hermes": Family(hermes.HermesParser, hermes.MARKS, _openai_id),
    "llama3_json": Family(llama3_json.Llama3JsonParser, llama3_json.MARKS, _openai_id),
    "mistral": Family(mistral.MistralParser, mistral.MARKS, _mistral_id),
    "pythonic": Family(pythonic.PythonicParser, pythonic.MARKS, _openai_id),
}
