"""What `/tokenize` counts is what is charged."""

from __future__ import annotations

import httpx2
import pytest

from tests.stack.stack import Stack

MESSAGES = [{"role": "user", "content": "What is the capital of France? 🚂"}]


@pytest.mark.parametrize("model", ["house-chat", "depot-chat", "yard-chat"])
def test_the_count_is_the_prompts_usage(stack: Stack, model: str) -> None:
    with httpx2.Client(base_url=stack.origin, headers=stack.headers, timeout=60) as http:
        counted = http.post("/tokenize", json={"model": model, "messages": MESSAGES}).json()
        chat = {"model": model, "messages": MESSAGES, "max_tokens": 1}
        served = http.post("/v1/chat/completions", json=chat).json()
        assert counted["count"] == len(counted["tokens"]) == served["usage"]["prompt_tokens"]
        back = http.post("/detokenize", json={"model": model, "tokens": counted["tokens"]}).json()
        assert MESSAGES[0]["content"] in back["prompt"]
