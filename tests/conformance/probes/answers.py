"""Probes of answers: their forms, their length, and where they stop."""

from __future__ import annotations

from tests.conformance.ask import QUESTION, Ask, content, reason, streamed
from tests.conformance.probes.probe import probes

PROBES, probe = probes()

OPEN = [{"role": "user", "content": "Tell me something about engines."}]
"""A question without one certain answer."""


# Answers


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


# Length and stopping


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
