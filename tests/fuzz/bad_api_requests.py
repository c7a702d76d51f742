"""Bad requests of the Responses and Messages APIs: whole ones, some fields of which are kept, some broken."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from random import Random
from typing import Any

from tests.fuzz.bad_requests import BYTE_MUTATIONS, MUTATIONS, bytes_of

RESPONSES = "/v1/responses"
MESSAGES = "/v1/messages"
COUNT = "/v1/messages/count_tokens"
_SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}

BODIES: Mapping[str, dict[str, Any]] = {
    RESPONSES: {
        "input": [
            {"role": "developer", "content": "Be brief."},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
            {"type": "reasoning", "id": "rs_1", "summary": []},
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
            {
                "type": "function_call_output",
                "call_id": "c1",
                "output": [{"type": "input_text", "text": "a"}],
            },
            {"role": "user", "content": "Go on."},
        ],
        "instructions": "Be kind.",
        "temperature": 0.5,
        "top_p": 0.9,
        "stream": True,
        "tools": [{"type": "function", "name": "f", "parameters": _SCHEMA, "strict": True}],
        "tool_choice": {
            "type": "allowed_tools",
            "mode": "auto",
            "tools": [{"type": "function", "name": "f"}],
        },
        "parallel_tool_calls": True,
        "text": {"format": {"type": "json_schema", "name": "n", "schema": _SCHEMA}, "verbosity": "low"},
        "reasoning": {"effort": "low", "summary": "auto"},
        "metadata": {"a": "b"},
        "store": False,
        "include": [],
        "service_tier": "auto",
    },
    MESSAGES: {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "Hm.", "signature": ""},
                    {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "a"}]}
                ],
            },
        ],
        "system": [{"type": "text", "text": "Be brief."}],
        "stop_sequences": ["END"],
        "temperature": 0.5,
        "top_k": 4,
        "stream": True,
        "tools": [{"name": "f", "input_schema": _SCHEMA}],
        "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
        "thinking": {"type": "disabled"},
        "metadata": {"user_id": "u"},
        "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": _SCHEMA}},
    },
}
_SIMPLE: Mapping[str, Any] = {"input": "Hi", "messages": [{"role": "user", "content": "Hi"}]}
_LIMITS = {RESPONSES: "max_output_tokens", MESSAGES: "max_tokens"}


def bad_api_requests(seed: int, model: str = "demo") -> Iterator[tuple[str, bytes]]:
    """Path and body, endless; the same seed gives the same requests. What hits nothing asks for 2 tokens."""
    random = Random(seed)
    while True:
        path = random.choice((RESPONSES, MESSAGES, COUNT))
        request = _some_of(RESPONSES if path == RESPONSES else MESSAGES, model, random)
        if path == COUNT:
            request.pop("max_tokens")
        for _ in range(random.randint(0, 3)):
            random.choice(MUTATIONS)(request, random)
        body = bytes_of(request)
        if random.random() < 0.1:
            body = random.choice(BYTE_MUTATIONS)(body, random)
        yield path, body


def _some_of(kind: str, model: str, random: Random) -> dict[str, Any]:
    whole = deepcopy(BODIES[kind])
    prompt = "input" if kind == RESPONSES else "messages"
    if random.random() < 0.5:
        whole[prompt] = deepcopy(_SIMPLE[prompt])
    share = random.choice((0.1, 0.5, 1.0))
    kept = {name: value for name, value in whole.items() if name == prompt or random.random() < share}
    return {"model": model, _LIMITS[kind]: 2, **kept}
