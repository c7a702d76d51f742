"""`POST /v1/responses`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gateway.api.answers import Choice
from gateway.api.errors import encode_error
from gateway.api.responses.objects import ended, items_of, response_object
from gateway.api.responses.stream import ResponsesStream
from gateway.api.responses.translate import parse_responses
from gateway.api.sse import encode
from gateway.operations import Head
from inference.request import Usage


class Responses:
    """OpenAI's responses, of which nothing is kept."""

    name = "chat"
    path = "/v1/responses"
    upstream_path = "/v1/chat/completions"
    id_header = "x-request-id"
    parse = staticmethod(parse_responses)
    error = staticmethod(encode_error)

    def events(self, head: Head, choices: int) -> ResponsesStream:
        del choices  # there is one
        return ResponsesStream(head.request_id, _begun(head))

    def answer(self, head: Head, choices: Sequence[Choice], usage: Usage) -> bytes:
        output = items_of(head.request_id, choices[0])
        return encode(ended(_begun(head), output, choices[0].finish_reason, usage))


def _begun(head: Head) -> dict[str, Any]:
    translation = head.api.translation
    assert translation is not None
    return response_object(head.request_id, head.created, translation.body, head.service_tier)
