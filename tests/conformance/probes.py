"""Probes: one for each feature. A probe passes only when it has seen the feature's effect."""

from __future__ import annotations

import base64
import json
import re
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import jsonschema

from tests.conformance.ask import QUESTION, Ask, RefusedError, content, reason, streamed


class Probe(NamedTuple):
    group: str
    name: str
    run: Callable[[Ask], None]
    """Raises RefusedError where the lane refuses, AssertionError where the feature has no effect."""


OPEN = [{"role": "user", "content": "Tell me something about engines."}]
"""A question without one certain answer."""
GENERATING: list[Probe] = []
EMBEDDING: list[Probe] = []


def probe(group: str, name: str, into: list[Probe] = GENERATING) -> Callable[..., Callable[[Ask], None]]:
    def add(run: Callable[[Ask], None]) -> Callable[[Ask], None]:
        into.append(Probe(group, name, run))
        return run

    return add


# Answers ------------------------------------------------------------------------------------------


@probe("answers", "chat")
def chat(ask: Ask) -> None:
    answer = ask.chat()
    assert content(answer)
    assert reason(answer) == "stop"


@probe("answers", "chat, streamed")
def chat_streamed(ask: Ask) -> None:
    events = ask.chat_events()
    assert streamed(events) == ask.plain
    assert [c["finish_reason"] for e in events for c in e["choices"]][-1] == "stop"


@probe("answers", "text completion, several prompts")
def completion(ask: Ask) -> None:
    answer = ask.completion(prompt=["The engine", "A train"])
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    assert all(choice["text"] for choice in answer["choices"])


@probe("answers", "prompt as token ids")
def prompt_ids(ask: Ask) -> None:
    assert ask.tokenizer is not None
    ids = ask.tokenizer.encode("The engine")
    assert ask.completion(prompt=ids)["choices"][0]["text"] == ask.completion()["choices"][0]["text"]


@probe("answers", "n")
def several(ask: Ask) -> None:
    answer = ask.chat(n=4, temperature=2, seed=3, messages=OPEN)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    assert len({choice["message"]["content"] for choice in answer["choices"]}) > 1


@probe("answers", "best_of")
def best_of(ask: Ask) -> None:
    answer = ask.completion(best_of=3, n=1, temperature=1.0)
    assert len(answer["choices"]) == 1
    assert answer["usage"]["completion_tokens"] > 12


@probe("answers", "echo")
def echo(ask: Ask) -> None:
    assert ask.completion(echo=True)["choices"][0]["text"].startswith("The engine")


@probe("answers", "suffix")
def suffix(ask: Ask) -> None:
    ask.completion(suffix=" and stops.")
    raise AssertionError("a suffix was taken and cannot have had an effect")


@probe("answers", "text in parts, developer role, user, metadata")
def parts(ask: Ask) -> None:
    messages = [
        {"role": "developer", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is the capital"},
                {"type": "text", "text": "of France?"},
            ],
        },
    ]
    assert ask.text(messages=messages, user="eva", metadata={"a": "b"})


@probe("answers", "service_tier")
def service_tier(ask: Ask) -> None:
    assert ask.chat(service_tier="flex")["service_tier"] in {"flex", "default", "priority"}


# Length and stopping ------------------------------------------------------------------------------


@probe("ending", "max_tokens")
def max_tokens(ask: Ask) -> None:
    answer = ask.chat(max_tokens=3)
    assert reason(answer) == "length"
    assert answer["usage"]["completion_tokens"] == 3


@probe("ending", "max_completion_tokens")
def max_completion_tokens(ask: Ask) -> None:
    assert (
        reason(ask.post("/v1/chat/completions", {"messages": QUESTION, "max_completion_tokens": 2}))
        == "length"
    )


@probe("ending", "stop, across token borders")
def stop(ask: Ask) -> None:
    word = ask.plain[2:6]
    answer = ask.chat(stop=[word, "never said"])
    assert content(answer) == ask.plain[: ask.plain.index(word)]
    assert reason(answer) == "stop"
    assert streamed(ask.chat_events(stop=word)) == content(answer)


@probe("ending", "stop_token_ids")
def stop_token_ids(ask: Ask) -> None:
    assert ask.tokenizer is not None
    ids = ask.tokenizer.encode(ask.plain, add_special_tokens=False)
    assert ask.plain.startswith(ask.text(stop_token_ids=[ids[2]]))
    assert len(ask.text(stop_token_ids=[ids[2]])) < len(ask.plain)


@probe("ending", "include_stop_str_in_output")
def include_stop(ask: Ask) -> None:
    word = ask.plain[2:6]
    assert ask.text(stop=[word], include_stop_str_in_output=True) == ask.plain[: ask.plain.index(word)] + word


@probe("ending", "min_tokens")
def min_tokens(ask: Ask) -> None:
    assert ask.chat(min_tokens=40)["usage"]["completion_tokens"] >= 40


@probe("ending", "ignore_eos")
def ignore_eos(ask: Ask) -> None:
    answer = ask.chat(ignore_eos=True)
    assert reason(answer) == "length"
    assert answer["usage"]["completion_tokens"] == 48


# Sampling -----------------------------------------------------------------------------------------


@probe("sampling", "seed")
def seed(ask: Ask) -> None:
    hot = {"temperature": 1.8, "max_tokens": 24}
    assert ask.text(seed=5, **hot) == ask.text(seed=5, **hot)
    assert len({ask.text(**hot) for _ in range(5)}) > 1


@probe("sampling", "top_p")
def top_p(ask: Ask) -> None:
    assert ask.text(temperature=1.5, top_p=0.01) == ask.plain


@probe("sampling", "top_k")
def top_k(ask: Ask) -> None:
    assert ask.text(temperature=1.5, top_k=1) == ask.plain


@probe("sampling", "min_p")
def min_p(ask: Ask) -> None:
    assert ask.text(temperature=1.5, min_p=0.99) == ask.plain


@probe("sampling", "frequency_penalty")
def frequency_penalty(ask: Ask) -> None:
    changes(ask, frequency_penalty=2.0)


@probe("sampling", "presence_penalty")
def presence_penalty(ask: Ask) -> None:
    changes(ask, presence_penalty=2.0)


@probe("sampling", "repetition_penalty")
def repetition_penalty(ask: Ask) -> None:
    changes(ask, repetition_penalty=8.0)


@probe("sampling", "logit_bias")
def logit_bias(ask: Ask) -> None:
    assert ask.tokenizer is not None
    wanted = ask.tokenizer.encode(" the", add_special_tokens=False)[0]
    assert (
        ask.chat(logit_bias={str(wanted): 100}, max_tokens=3)["choices"][0]["message"]["content"]
        .strip()
        .startswith("the")
    )


@probe("sampling", "bad_words")
def bad_words(ask: Ask) -> None:
    word = ask.plain.split()[0]
    assert word not in ask.text(bad_words=[word, f" {word}"])


def changes(ask: Ask, **fields: Any) -> None:
    """Over a long answer the setting shows."""
    longer = {"ignore_eos": True, "max_tokens": 64}
    try:
        plain = ask.text(**longer)
    except Exception:  # where the end cannot be ignored, a long answer is asked for
        longer = {"max_tokens": 64, "messages": [{"role": "user", "content": "Count from one to twenty."}]}
        plain = ask.text(**longer)
    assert ask.text(**longer, **fields) != plain, "no effect"


# Log probabilities --------------------------------------------------------------------------------


@probe("log probabilities", "logprobs")
def logprobs(ask: Ask) -> None:
    answer = ask.chat(logprobs=True, max_tokens=8)
    entries = answer["choices"][0]["logprobs"]["content"]
    assert len(entries) == answer["usage"]["completion_tokens"]
    assert b"".join(bytes(entry["bytes"]) for entry in entries).decode() == content(answer)
    assert all(entry["logprob"] <= 0 for entry in entries)


@probe("log probabilities", "top_logprobs")
def top_logprobs(ask: Ask) -> None:
    entries = ask.chat(logprobs=True, top_logprobs=3, max_tokens=4)["choices"][0]["logprobs"]["content"]
    assert all(len(entry["top_logprobs"]) == 3 for entry in entries)


# Guided output ------------------------------------------------------------------------------------

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 12}, "large": {"type": "boolean"}},
    "required": ["city", "large"],
    "additionalProperties": False,
}


@probe("guided output", "response_format: json_object")
def json_object(ask: Ask) -> None:
    """Small models write keys without an end: what is cut off by its length must still be an object's begin.

    Text lanes of 0.19 tell no count, so that `finish_reason` is not always known there.
    """
    answer = ask.chat(response_format={"type": "json_object"}, max_tokens=500)
    text = content(answer).lstrip()
    try:
        assert isinstance(json.loads(text), dict)
    except json.JSONDecodeError:
        assert text.startswith("{")
        assert answer["usage"]["completion_tokens"] > 250


@probe("guided output", "response_format: json_schema, strict")
def json_schema(ask: Ask) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "city", "strict": True, "schema": SCHEMA}}
    jsonschema.validate(json.loads(ask.text(response_format=wanted, max_tokens=200)), SCHEMA)
    jsonschema.validate(json.loads(streamed(ask.chat_events(response_format=wanted, max_tokens=200))), SCHEMA)


@probe("guided output", "guided_json")
def guided_json(ask: Ask) -> None:
    jsonschema.validate(json.loads(ask.text(guided_json=SCHEMA, max_tokens=200)), SCHEMA)


@probe("guided output", "guided_regex")
def guided_regex(ask: Ask) -> None:
    assert re.fullmatch(r"[0-9]{3}-[0-9]{2}", ask.text(guided_regex="[0-9]{3}-[0-9]{2}"))


@probe("guided output", "guided_choice")
def guided_choice(ask: Ask) -> None:
    assert ask.text(guided_choice=["north", "south"]) in {"north", "south"}


@probe("guided output", "guided_grammar")
def guided_grammar(ask: Ask) -> None:
    assert ask.text(guided_grammar='root ::= "yes" | "no"') in {"yes", "no"}


# Tools and reasoning ------------------------------------------------------------------------------

TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Looks a city up.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Paris", "Rome", "Oslo"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


@probe("tools", "tools offered")
def tools_offered(ask: Ask) -> None:
    with_tools = ask.chat(tools=[TOOL])
    assert with_tools["usage"]["prompt_tokens"] > ask.chat()["usage"]["prompt_tokens"], (
        "not shown to the model"
    )


@probe("tools", "tool_choice: required")
def tool_required(ask: Ask) -> None:
    answer = ask.chat(tools=[TOOL], tool_choice="required", max_tokens=200)
    _check_call(answer["choices"][0]["message"]["tool_calls"][0]["function"])
    assert reason(answer) == "tool_calls"


@probe("tools", "tool_choice: named, streamed")
def tool_named(ask: Ask) -> None:
    choice = {"type": "function", "function": {"name": "look_up"}}
    events = ask.chat_events(tools=[TOOL], tool_choice=choice, max_tokens=200)
    deltas = [d for e in events for c in e["choices"] for d in c["delta"].get("tool_calls") or ()]
    name = "".join(d["function"].get("name") or "" for d in deltas)
    _check_call({"name": name, "arguments": "".join(d["function"].get("arguments") or "" for d in deltas)})


@probe("tools", "tool results in messages")
def tool_results(ask: Ask) -> None:
    call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "look_up", "arguments": '{"city":"Paris"}'},
    }
    messages = [
        *QUESTION,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "Paris, two million people"},
    ]
    answer = ask.chat(messages=messages, tools=[TOOL])
    assert answer["usage"]["prompt_tokens"] > ask.chat(tools=[TOOL])["usage"]["prompt_tokens"]


def _check_call(function: dict[str, str]) -> None:
    assert function["name"] == "look_up"
    jsonschema.validate(json.loads(function["arguments"]), TOOL["function"]["parameters"])  # type: ignore[index]


# Tokens -------------------------------------------------------------------------------------------


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


# Adapters -----------------------------------------------------------------------------------------


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


# Other APIs ---------------------------------------------------------------------------------------


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


# Embeddings ---------------------------------------------------------------------------------------


def vectors(ask: Ask, **fields: Any) -> list[Any]:
    answer = ask.post("/v1/embeddings", fields)
    assert [item["index"] for item in answer["data"]] == list(range(len(answer["data"])))
    return [item["embedding"] for item in answer["data"]]


def near(one: list[float], other: list[float]) -> bool:
    return len(one) == len(other) and all(abs(a - b) < 1e-3 for a, b in zip(one, other, strict=True))


@probe("embeddings", "text", EMBEDDING)
def embed_text(ask: Ask) -> None:
    (vector,) = vectors(ask, input="The engine runs.")
    (other,) = vectors(ask, input="A train is late.")
    assert len(vector) > 8
    assert not near(vector, other)


@probe("embeddings", "several texts, each as if alone", EMBEDDING)
def embed_several(ask: Ask) -> None:
    texts = ["The engine runs.", "A train is late, and nobody knows why.", "x"]
    together = vectors(ask, input=texts)
    assert all(
        near(vector, vectors(ask, input=text)[0]) for vector, text in zip(together, texts, strict=True)
    )


@probe("embeddings", "token ids", EMBEDDING)
def embed_ids(ask: Ask) -> None:
    assert ask.tokenizer is not None
    ids = ask.tokenizer.encode("The engine runs.")
    assert near(vectors(ask, input=ids)[0], vectors(ask, input="The engine runs.")[0])


@probe("embeddings", "encoding_format: base64", EMBEDDING)
def embed_base64(ask: Ask) -> None:
    (packed,) = vectors(ask, input="The engine runs.", encoding_format="base64")
    raw = base64.b64decode(packed)
    assert near(list(struct.unpack(f"<{len(raw) // 4}f", raw)), vectors(ask, input="The engine runs.")[0])


@probe("embeddings", "dimensions", EMBEDDING)
def embed_dimensions(ask: Ask) -> None:
    (vector,) = vectors(ask, input="The engine runs.", dimensions=8)
    assert len(vector) == 8
    assert abs(sum(value * value for value in vector) - 1) < 1e-3


@probe("embeddings", "usage is exact", EMBEDDING)
def embed_usage(ask: Ask) -> None:
    assert ask.tokenizer is not None
    usage = ask.post("/v1/embeddings", {"input": ["The engine runs.", "x"]})["usage"]
    assert usage["prompt_tokens"] == sum(
        len(ask.tokenizer.encode(text)) for text in ("The engine runs.", "x")
    )


@probe("embeddings", "chat refused", EMBEDDING)
def embed_chat(ask: Ask) -> None:
    reply = ask.client.post("/v1/chat/completions", json={"model": ask.model, "messages": QUESTION})
    assert reply.status_code == 400
    assert reply.json()["error"]["code"] == "unsupported_model"
