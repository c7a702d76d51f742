"""Usage: what one whole request has used, of its choices and of what their engines told."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.parsing import Parsing
from gateway.streaming.choices import Choice
from inference.request import InferenceRequest, Usage
from router.attempts import Finished


def usage_of(
    choices: Sequence[Choice],
    finished: Sequence[Finished],
    requests: Sequence[InferenceRequest],
    prompt_tokens: int | None,
    parsing: Parsing | None,
) -> Usage:
    """The whole request's usage: each prompt counts once, every choice's answer counts."""
    if finished[0].endpoint.lane == "openai-http":
        return finished[0].usage
    completion = sum(
        choice.assembler.completion_tokens(
            end.reason, end.usage.completion_tokens, request.max_tokens, end.usage.counts_end
        )
        for choice, end, request in zip(choices, finished, requests, strict=True)
        if choice.assembler
    )
    told = [end.usage.cached_tokens for end in finished if end.usage.cached_tokens is not None]
    cached = min(max(told), prompt_tokens or 0) if told else None
    thoughts = None
    if parsing is not None:
        thoughts = parsing.thought_tokens(one.assembler for one in choices if one.assembler)
    return Usage(prompt_tokens, completion, cached, thoughts)
