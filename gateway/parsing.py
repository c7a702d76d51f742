"""Parsing: how the answers to one request are taken apart, where the request or its model asks for that."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import NamedTuple

from gateway.api.requests import ApiRequest
from gateway.api.tools import ToolUse
from gateway.streaming import reasoning
from gateway.streaming.parts import PartParser
from gateway.streaming.reasoning import ReasoningParser
from gateway.streaming.text import Assembler
from gateway.streaming.tool_parsers import FAMILIES
from gateway.streaming.tool_parsers.first_call import FirstCallOnly
from gateway.streaming.tool_parsers.forced import ForcedCallsParser, NamedCallParser
from inference.tokenizer import ModelTokenizer
from model_registry.entities import Model, ToolParserName


class Parsing(NamedTuple):
    """Makes the parser of each choice."""

    tools: ToolUse | None
    family: ToolParserName | None
    reasons: bool
    """The model's thoughts are told from its answer."""
    thinking: bool
    """Its answer begins within thoughts."""
    shown: bool
    think_ids: tuple[int | None, int | None]
    """The tokens that begin and end thoughts, where the marks are tokens."""

    @property
    def marks(self) -> frozenset[str]:
        """Special tokens that detokenising keeps, because a parser reads them."""
        family = FAMILIES[self.family].marks if self.family is not None else ()
        return frozenset((*family, *(reasoning.MARKS if self.reasons else ())))

    def parser(self) -> PartParser | None:
        """The parser of one choice."""
        tools = _tool_parser(self.tools, self.family)
        if not self.reasons:
            return tools
        return ReasoningParser(tools, thinking=self.thinking, shown=self.shown)

    def thought_tokens(self, assemblers: Iterable[Assembler]) -> int | None:
        """Tokens of the thoughts of all choices; None where they cannot be told."""
        if not self.reasons:
            return None
        counts = [one.thought_tokens(*self.think_ids, within=self.thinking) for one in assemblers]
        return None if None in counts else sum(count or 0 for count in counts)


def parsing_for(
    api: ApiRequest, model: Model, prompt: str | None, tokenizer: ModelTokenizer
) -> Parsing | None:
    """How to take the answers to `prompt` apart; None where they are text and nothing else."""
    tools = api.tools if api.tools is not None and api.tools.choice != "none" else None
    reasons = model.reasoning_parser is not None and api.kind == "chat"
    if tools is None and not reasons:
        return None
    family = model.tool_parser if tools is not None else None
    default = model.reasoning_parser == "deepseek_r1"
    # A guided answer is in its form from its first token on, and has no room for thoughts.
    thinking = reasons and api.guide is None and reasoning.opens_within(prompt or "", default)
    think_ids = (tokenizer.token_id(reasoning.OPEN), tokenizer.token_id(reasoning.CLOSE))
    return Parsing(tools, family, reasons, thinking, api.include_reasoning, think_ids)


def _tool_parser(tools: ToolUse | None, name: ToolParserName | None) -> PartParser | None:
    if tools is None or name is None:
        return None
    family = FAMILIES[name]
    make = {"auto": family.parser, "required": ForcedCallsParser}.get(tools.choice)
    made = (make or partial(NamedCallParser, tools.named))(tools.names, family.make_id)
    return made if tools.parallel else FirstCallOnly(made)
