"""`POST /v1/chat/completions`."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.api.answers import ChatStream, Choice, chat_answer
from gateway.api.errors import encode_error
from gateway.api.requests import parse_chat
from gateway.operations import Head
from inference.request import Usage


class ChatCompletion:
    """OpenAI's chat completions."""

    name = "chat"
    path = "/v1/chat/completions"
    upstream_path = path
    id_header = "x-request-id"
    parse = staticmethod(parse_chat)
    error = staticmethod(encode_error)

    def events(self, head: Head, choices: int) -> ChatStream:
        return ChatStream(
            f"chatcmpl-{head.request_id}",
            head.created,
            head.api.model,
            choices,
            include_usage=head.api.include_usage,
            service_tier=head.service_tier,
        )

    def answer(self, head: Head, choices: Sequence[Choice], usage: Usage) -> bytes:
        answer_id = f"chatcmpl-{head.request_id}"
        return chat_answer(
            answer_id, head.created, head.api.model, choices, usage, service_tier=head.service_tier
        )
