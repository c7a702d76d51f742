"""Probes of counts and ids of tokens, of adapters, and of the other APIs."""

from __future__ import annotations

from tests.conformance.ask import QUESTION, Ask, RefusedError, content, streamed
from tests.conformance.probes.probe import probes

PROBES, probe = probes()

# Tokens


@probe("tokens", "usage is exact")
def usage(ask: Ask) -> None:
    answer = ask.chat()
    prompt, completion = answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]
    last = ask.chat_events(stream_options={"include_usage": True})[-1]["usage"]
    assert (last["prompt_tokens"], last["completion_tokens"]) == (prompt, completion)
    if ask.tokenizer is not None:
        _, ids = ask.tokenizer.encode_chat(QUESTION)
        assert (prompt, completion) == (len(ids), ask.tokenizer.count(content(answer)))


@probe("tokens", "cached_tokens")
def cached_tokens(ask: Ask) -> None:
    messages = [{"role": "user", "content": "Please say again where engines are built. " * 12}]
    ask.chat(messages=messages, max_tokens=2)
    again = ask.chat(messages=messages, max_tokens=2)["usage"]
    if "prompt_tokens_details" not in again:
        raise RefusedError("Not told, and left out of `usage`: the server does not say what it had cached.")
    assert again["prompt_tokens_details"]["cached_tokens"] > 0


@probe("tokens", "context length refused before the engine")
def context_length(ask: Ask) -> None:
    reply = ask.client.post(
        "/v1/chat/completions",
        json={"model": ask.model, "messages": [{"role": "user", "content": "engine " * 40_000}]},
    )
    assert reply.status_code == 400, reply.status_code
    assert reply.json()["error"]["code"] == "context_length_exceeded"


@probe("tokens", "/tokenize and /detokenize")
def tokenize(ask: Ask) -> None:
    ids = ask.post("/tokenize", {"prompt": "The engine runs."})["tokens"]
    assert "The engine runs." in ask.post("/detokenize", {"tokens": ids})["prompt"]


# Adapters


@probe("adapters", "LoRA adapter")
def lora(ask: Ask) -> None:
    tuned = ask.with_adapter()
    said = tuned.plain
    assert said != ask.plain, "the adapter changes nothing"
    assert streamed(tuned.chat_events()) == said
    assert tuned.completion()["choices"][0]["text"] != ask.completion()["choices"][0]["text"]
    asked = {"messages": QUESTION, "temperature": 0, "max_tokens": 48}
    assert "".join(block["text"] for block in tuned.post("/v1/messages", asked)["content"]) == said
    responses(tuned)
    assert ask.text() == ask.plain, "the base is no longer itself"


@probe("adapters", "LoRA adapter, tokens are its base's")
def lora_tokens(ask: Ask) -> None:
    tuned = ask.with_adapter()
    for path, body in (
        ("/tokenize", {"messages": QUESTION}),
        ("/v1/messages/count_tokens", {"messages": QUESTION}),
    ):
        assert tuned.post(path, body) == ask.post(path, body)
    assert tuned.chat()["usage"]["prompt_tokens"] == ask.chat()["usage"]["prompt_tokens"]


# Other APIs


@probe("other APIs", "/v1/responses")
def responses(ask: Ask) -> None:
    asked = {"input": QUESTION[0]["content"], "temperature": 0, "max_output_tokens": 48}
    answer = ask.post("/v1/responses", asked)
    text = "".join(
        p["text"] for item in answer["output"] if item["type"] == "message" for p in item["content"]
    )
    assert text == ask.plain
    events = ask.events("/v1/responses", asked)
    assert "".join(e["delta"] for e in events if e["type"] == "response.output_text.delta") == text


@probe("other APIs", "/v1/messages")
def messages(ask: Ask) -> None:
    asked = {"messages": QUESTION, "temperature": 0, "max_tokens": 48}
    answer = ask.post("/v1/messages", asked)
    assert "".join(block["text"] for block in answer["content"]) == ask.plain
    assert answer["stop_reason"] == "end_turn"
    events = ask.events("/v1/messages", asked)
    assert (
        "".join(e["delta"].get("text", "") for e in events if e["type"] == "content_block_delta") == ask.plain
    )
