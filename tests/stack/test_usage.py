"""Usage of every ending, against the tokenizer and the engines' own counters."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

from inference.tokenizer import ModelTokenizer
from tests.stack.stack import ROOT, Stack, wait_until
from tests.stack.test_answers import root_of

MODELS = ["house-chat", "yard-chat", "kiosk-chat", "depot-chat", "siding-chat"]
TOKENIZER_OF = {"depot-chat": "depot-chat", "siding-chat": "depot-chat"}
TOKENS_PER_BLOCK = 32


def tokenizer_of(model: str) -> ModelTokenizer:
    return ModelTokenizer.load(ROOT / "emulator" / "models" / TOKENIZER_OF.get(model, "house-chat"))


def counted(stack: Stack, answer: httpx2.Response) -> tuple[int, int]:
    """Prompt and completion tokens by the request's trace, which every ending writes."""
    attributes = root_of(stack, answer.headers["x-trace-id"])["attributes"]
    return attributes["gen_ai.usage.input_tokens"], attributes["gen_ai.usage.output_tokens"]


def chat(model: str, content: str, **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": content}]
    return {"model": model, "messages": messages, "temperature": 0, **fields}


def prompt_tokens(body: dict[str, Any]) -> int:
    return len(tokenizer_of(body["model"]).encode_chat(body["messages"])[1])


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_string_is_counted_and_what_follows_is_not(
    http: httpx2.Client, stack: Stack, model: str, stream: bool
) -> None:
    plain = http.post("/v1/chat/completions", json=chat(model, "Tell me of Paris.", max_tokens=24))
    text = plain.json()["choices"][0]["message"]["content"]
    tokenizer = tokenizer_of(model)
    ids = tokenizer.encode(text, add_special_tokens=False)
    until = tokenizer.decode(ids[:5])
    stop = tokenizer.decode(ids[3:5])
    assert text.index(stop) == len(until) - len(stop)
    body = chat(model, "Tell me of Paris.", max_tokens=24, stop=[stop], stream=stream)
    answer = http.post("/v1/chat/completions", json=body)
    assert counted(stack, answer) == (prompt_tokens(body), 5)


@pytest.mark.parametrize("model", MODELS)
def test_a_client_that_leaves_is_counted_as_far_as_it_came(
    http: httpx2.Client, stack: Stack, model: str
) -> None:
    """At least what it has read; never what nobody generated."""
    body = chat(model, "Tell me a long story.", temperature=1.0, max_tokens=400, stream=True)
    if model != "depot-chat":
        body["min_tokens"] = 400
    read = ""
    with http.stream("POST", "/v1/chat/completions", json=body) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                read += json.loads(line[6:])["choices"][0]["delta"].get("content") or ""
            if len(read) > 60 or line == "data: [DONE]":
                break
    prompt, completion = counted(stack, answer)
    assert prompt == prompt_tokens(body)
    if model in ("house-chat", "depot-chat"):
        assert tokenizer_of(model).count(read) // 2 < completion <= 400
    else:
        assert 0 < completion <= 400


@pytest.mark.parametrize("model", MODELS)
def test_a_request_that_no_engine_took_counts_nothing(http: httpx2.Client, stack: Stack, model: str) -> None:
    answer = http.post("/v1/chat/completions", json=chat(model, "Hello", cache_salt="s"))
    assert answer.status_code == 400
    assert counted(stack, answer) == (0, 0)


@pytest.mark.parametrize("model", MODELS)
def test_choices_share_the_prompt_and_add_their_answers(
    http: httpx2.Client, stack: Stack, model: str
) -> None:
    body = chat(model, "What is the capital of France?", n=3, temperature=1.0, max_tokens=7)
    answer = http.post("/v1/chat/completions", json=body)
    usage = answer.json()["usage"]
    reasons = [choice["finish_reason"] for choice in answer.json()["choices"]]
    assert usage["prompt_tokens"] == prompt_tokens(body)
    assert usage["completion_tokens"] <= 21
    if reasons == ["length"] * 3:
        assert usage["completion_tokens"] == 21
    assert counted(stack, answer) == (usage["prompt_tokens"], usage["completion_tokens"])


@pytest.mark.parametrize("model", ["house-chat:throughput", "yard-chat", "kiosk-chat"])
@pytest.mark.parametrize("by_stop", [False, True])
def test_cached_tokens_are_the_blocks_that_the_engine_reused(
    http: httpx2.Client, stack: Stack, model: str, by_stop: bool
) -> None:
    """Also where a stop string of one token ends the answer, in the gateway as at the engine."""
    text = f"Remember {model}, {by_stop}: " + "all engines run well today. " * 20
    body = chat(model, text, max_tokens=3)
    if by_stop:
        words = http.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]["content"]
        tokenizer = tokenizer_of(model)
        body["stop"] = tokenizer.decode(tokenizer.encode(words, add_special_tokens=False)[1:2])
    first = http.post("/v1/chat/completions", json=body).json()["usage"]
    before = reused_blocks(stack)
    second = http.post("/v1/chat/completions", json=body).json()["usage"]
    cached = second["prompt_tokens_details"]["cached_tokens"]
    assert cached >= TOKENS_PER_BLOCK
    wait_until(lambda: reused_blocks(stack) > before, 5, "the engine has counted its reuse")
    assert cached == min((reused_blocks(stack) - before) * TOKENS_PER_BLOCK, second["prompt_tokens"])
    assert first["prompt_tokens"] == second["prompt_tokens"]


def reused_blocks(stack: Stack) -> int:
    """Of all engines, by their own counters."""
    found = 0
    for server in stack.ready["triton"]:
        for line in httpx2.get(server["metrics"]).text.splitlines():
            if line.startswith("nv_trt_llm_kv_cache_block_metrics") and '="reused"' in line:
                found += int(float(line.rpartition(" ")[2]))
    return found
