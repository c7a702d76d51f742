"""`POST /v1/messages`."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.api.answers import Choice
from gateway.api.anthropic.answers import MessageStream, message
from gateway.api.anthropic.errors import encode_error
from gateway.api.anthropic.fields import MessagesBody
from gateway.api.anthropic.translate import parse_messages
from gateway.operations import Head
from inference.request import Usage


class Messages:
    """Anthropic's messages."""

    name = "chat"
    path = "/v1/messages"
    upstream_path = "/v1/chat/completions"
    id_header = "request-id"
    parse = staticmethod(parse_messages)
    error = staticmethod(encode_error)

    def events(self, head: Head, choices: int) -> MessageStream:
        del choices  # there is one
        return MessageStream(
            head.request_id,
            head.api.model,
            head.prompt_tokens,
            head.service_tier,
            shows_thinking=_shows_thinking(head),
        )

    def answer(self, head: Head, choices: Sequence[Choice], usage: Usage) -> bytes:
        return message(
            head.request_id,
            head.api.model,
            choices[0],
            usage,
            head.service_tier,
            shows_thinking=_shows_thinking(head),
        )


def _shows_thinking(head: Head) -> bool:
    translation = head.api.translation
    assert translation is not None
    assert isinstance(translation.body, MessagesBody)
    return translation.body.shows_thinking
