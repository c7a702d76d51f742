"""Guided answers on the whole stack: forms that engines follow, and forms that they cannot."""

from __future__ import annotations

import asyncio
import json

import jsonschema
import openai
import pytest

from tests.stack.stack import Stack

ASK: list[openai.types.chat.ChatCompletionMessageParam] = [
    {"role": "user", "content": "What is the capital of France?"}
]
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 10}, "large": {"type": "boolean"}},
    "required": ["city", "large"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("model", ["house-chat:latency", "house-chat:throughput", "yard-chat", "kiosk-chat"])
async def test_every_lane_keeps_to_a_schema_with_others_beside(stack: Stack, model: str) -> None:
    """Guided and unguided requests in one batch; each gets what it asked for."""
    wanted = {"type": "json_schema", "json_schema": {"name": "city", "strict": True, "schema": SCHEMA}}
    async with stack.async_client() as client:

        async def ask(number: int) -> str:
            guided = {"response_format": wanted} if number % 2 else {}
            answer = await client.chat.completions.create(
                model=model,
                messages=ASK,
                temperature=0,
                max_tokens=120,
                **guided,  # type: ignore[call-overload]
            )
            return str(answer.choices[0].message.content)

        texts = await asyncio.gather(*(ask(number) for number in range(8)))
    for text in texts[1::2]:
        jsonschema.validate(json.loads(text), SCHEMA)
    assert len(set(texts[::2])) == 1
    assert "{" not in texts[0]


@pytest.mark.parametrize("model", ["house-chat", "yard-chat"])
def test_a_form_that_no_engine_can_follow_is_the_clients_mistake(stack: Stack, model: str) -> None:
    """However often: it neither tries every engine nor keeps others from them."""
    client = stack.client()
    for _ in range(5):
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(model=model, messages=ASK, extra_body={"guided_regex": "(["})
        assert caught.value.param == "guided_regex"
    for profile in ("latency", "throughput"):
        answer = client.chat.completions.create(
            model=model, messages=ASK, max_tokens=4, extra_headers={"X-Enginehouse-Profile": profile}
        )
        assert answer.choices[0].message.content
