"""Assembling: how a request's answers are put together from tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from gateway.api.requests import ApiRequest
from gateway.parsing import Parsing, parsing_for
from gateway.prompts import Prompt
from gateway.streaming.parts import PartParser
from gateway.streaming.text import Assembler
from inference.request import InferenceRequest
from inference.tokenizer import ModelTokenizer
from model_registry.entities import Model

_NO_MARKS: frozenset[str] = frozenset()
_PROMPT_END_TOKENS = 64


class Assembling(NamedTuple):
    """How a request's answers are put together here; those of an OpenAI-HTTP upstream are relayed."""

    echoes: Sequence[str]
    """What each choice begins with: its prompt, where the client wants it back."""
    make: Callable[[], Assembler] | None = None
    """Makes the assembler of each choice."""
    parsing: Parsing | None = None

    def parser(self) -> PartParser | None:
        """The part parser of one choice."""
        return None if self.parsing is None else self.parsing.parser()


RELAYED = Assembling(("",))


def assembling_for(
    api: ApiRequest,
    model: Model,
    prompts: Sequence[Prompt],
    requests: Sequence[InferenceRequest],
    tokenizer: ModelTokenizer,
) -> Assembling:
    """What the answers to `requests` go through."""
    parsing = parsing_for(api, model, _end_of(prompts[0], tokenizer), tokenizer)
    marks = parsing.marks if parsing is not None else _NO_MARKS
    make = partial(Assembler, tokenizer, api.stop, api.sampling.log_probs, api.options, marks)
    return Assembling(_echoes(api, requests, tokenizer), make, parsing)


def _end_of(prompt: Prompt, tokenizer: ModelTokenizer) -> str:
    """Enough of a prompt to tell how its answer begins; one that was cut has no text of its own."""
    if prompt.text is not None:
        return prompt.text
    return tokenizer.tokenizer.decode(prompt.ids[-_PROMPT_END_TOKENS:], skip_special_tokens=False)


def _echoes(
    api: ApiRequest, requests: Sequence[InferenceRequest], tokenizer: ModelTokenizer
) -> Sequence[str]:
    if not api.echo:
        return [""] * len(requests)
    return [
        tokenizer.decode(request.prompt_ids or ()) if request.prompt_text is None else request.prompt_text
        for request in requests
    ]
