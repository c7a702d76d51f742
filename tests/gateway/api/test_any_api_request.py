"""Whatever is sent to the Responses and Messages APIs: a request, or an error in the client's words."""

from __future__ import annotations

from itertools import islice

from gateway.api.anthropic.translate import parse_count, parse_messages
from gateway.api.errors import ApiError, ErrorShape
from gateway.api.json_body import BodyLimits
from gateway.api.requests import ApiRequest
from gateway.api.responses.translate import parse_responses
from tests.fuzz.bad_api_requests import COUNT, MESSAGES, RESPONSES, bad_api_requests

PARSERS = {RESPONSES: parse_responses, MESSAGES: parse_messages, COUNT: parse_count}
CHATS_OWN = ("max_completion_tokens", "response_format", "reasoning_effort", "tool_calls", "tool_call_id")
"""Fields of chat completions that neither API has."""


def outcome(path: str, body: bytes) -> ApiRequest | ErrorShape:
    """What the client gets; anything but an ApiError fails the test."""
    try:
        request = PARSERS[path](body, BodyLimits())
    except ApiError as error:
        return error.shape
    try:
        request.refuse_unserved()
    except ApiError as error:
        assert request.translation is not None
        return request.translation.in_clients_words(error.shape)
    return request


def test_bad_requests_are_refused_by_the_clients_own_fields() -> None:
    """Nothing else is raised, and no error speaks of fields that the client does not know."""
    served = refused = 0
    for path, body in islice(bad_api_requests(seed=7), 6_000):
        got = outcome(path, body)
        if isinstance(got, ApiRequest):
            served += 1
            continue
        refused += 1
        assert got.status in (400, 413)
        words = (*CHATS_OWN, "messages[") if path == RESPONSES else CHATS_OWN
        foreign = [word for word in words if word in (got.param or "") and word.encode() not in body]
        assert not foreign, (got, body)
    assert served > 150
    assert refused > 2400
