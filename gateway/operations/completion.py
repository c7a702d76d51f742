"""`POST /v1/completions`."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.api.answers import Choice, CompletionStream, completion_answer
from gateway.api.errors import encode_error
from gateway.api.requests import parse_completion
from gateway.operations import Head
from inference.request import Usage


class TextCompletion:
    """OpenAI's text completions."""

    name = "text_completion"
    path = "/v1/completions"
    upstream_path = path
    id_header = "x-request-id"
    parse = staticmethod(parse_completion)
    error = staticmethod(encode_error)

    def events(self, head: Head, choices: int) -> CompletionStream:
        return CompletionStream(
            f"cmpl-{head.request_id}",
            head.created,
            head.api.model,
            choices,
            include_usage=head.api.include_usage,
        )

    def answer(self, head: Head, choices: Sequence[Choice], usage: Usage) -> bytes:
        return completion_answer(f"cmpl-{head.request_id}", head.created, head.api.model, choices, usage)
