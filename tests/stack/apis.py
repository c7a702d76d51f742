"""What the Responses and Messages APIs must do on any stack, driven by the official SDKs."""

from __future__ import annotations

from typing import Any

from anthropic import Anthropic

from tests.stack.stack import Stack

QUESTION = "What is the capital of France?"
GREEDY = {"temperature": 0}
"""What the SDK of Messages has no argument for any more, and the API takes."""


def anthropic_client(stack: Stack, key: str | None = None) -> Anthropic:
    return Anthropic(base_url=stack.origin, api_key=key or stack.key, max_retries=0, timeout=60)


def chat_of(stack: Stack, model: str, messages: list[Any], **options: Any) -> Any:
    return stack.client().chat.completions.create(model=model, messages=messages, temperature=0, **options)


def responses_say_what_chat_says(stack: Stack, model: str) -> None:
    """Streamed and not, over two turns: text, usage and status."""
    client = stack.client().responses
    turn: list[Any] = [{"role": "user", "content": QUESTION}]
    for follow_up in ("And of Italy?", None):
        chat = chat_of(stack, model, turn, max_tokens=64)
        whole = client.create(model=model, input=turn, temperature=0, max_output_tokens=64)
        assert whole.output_text == chat.choices[0].message.content
        assert whole.output_text
        assert whole.status == "completed"
        assert whole.usage is not None
        assert whole.usage.input_tokens == chat.usage.prompt_tokens
        assert whole.usage.output_tokens == chat.usage.completion_tokens
        events = list(
            client.create(model=model, input=turn, temperature=0, max_output_tokens=64, stream=True)
        )
        assert [event.type for event in events[:2]] == ["response.created", "response.in_progress"]
        assert [event.sequence_number for event in events] == list(range(len(events)))
        last = events[-1]
        assert last.type == "response.completed"
        assert last.response.output_text == whole.output_text
        deltas = "".join(e.delta for e in events if e.type == "response.output_text.delta")
        assert deltas == whole.output_text
        assert last.response.usage is not None
        assert last.response.usage.output_tokens == whole.usage.output_tokens
        turn += [*whole.output, {"role": "user", "content": follow_up}]
        turn = [item if isinstance(item, dict) else item.model_dump(exclude_none=True) for item in turn]
        if follow_up is not None:
            turn = _as_chat(turn)


def _as_chat(turn: list[Any]) -> list[Any]:
    """Items that both APIs take."""
    texts = [
        item["content"] if isinstance(item["content"], str) else item["content"][0]["text"] for item in turn
    ]
    return [{"role": item["role"], "content": text} for item, text in zip(turn, texts, strict=True)]


def messages_say_what_chat_says(stack: Stack, model: str) -> None:
    """Streamed and not, over two turns: text, usage and stop reason."""
    client = anthropic_client(stack).messages
    turn: list[Any] = [{"role": "user", "content": QUESTION}]
    for follow_up in ("And of Italy?", None):
        chat = chat_of(stack, model, turn, max_tokens=64)
        whole = client.create(model=model, messages=turn, max_tokens=64, extra_body=GREEDY)
        text = "".join(block.text for block in whole.content if block.type == "text")
        assert text == chat.choices[0].message.content
        assert (whole.stop_reason, whole.stop_sequence) == ("end_turn", None)
        usage = whole.usage
        assert usage.input_tokens + (usage.cache_read_input_tokens or 0) == chat.usage.prompt_tokens
        assert usage.output_tokens == chat.usage.completion_tokens
        with client.stream(model=model, messages=turn, max_tokens=64, extra_body=GREEDY) as stream:
            deltas = "".join(stream.text_stream)
            final = stream.get_final_message()
            assert stream.response.headers["request-id"]
        assert deltas == text
        assert final.stop_reason == "end_turn"
        counted = final.usage
        assert counted.input_tokens + (counted.cache_read_input_tokens or 0) == chat.usage.prompt_tokens
        assert counted.output_tokens == chat.usage.completion_tokens
        turn += [{"role": "assistant", "content": text}, {"role": "user", "content": follow_up}]


def answers_end_for_the_same_reasons(stack: Stack, model: str) -> None:
    """The length limit and stop strings, in each API's words, streamed and not."""
    responses, messages = stack.client().responses, anthropic_client(stack).messages
    short = responses.create(model=model, input=QUESTION, temperature=0, max_output_tokens=2)
    assert short.status == "incomplete"
    assert short.incomplete_details is not None
    assert short.incomplete_details.reason == "max_output_tokens"
    assert short.usage is not None
    assert short.usage.output_tokens == 2
    ends = list(
        responses.create(model=model, input=QUESTION, temperature=0, max_output_tokens=2, stream=True)
    )
    assert ends[-1].type == "response.incomplete"
    asked: list[Any] = [{"role": "user", "content": QUESTION}]
    cut = messages.create(model=model, messages=asked, max_tokens=2, extra_body=GREEDY)
    assert cut.stop_reason == "max_tokens"
    assert cut.usage.output_tokens == 2
    text = chat_of(stack, model, asked, max_tokens=64).choices[0].message.content
    stop = text[3:6]
    options: dict[str, Any] = {"stop_sequences": ["never said", stop], "max_tokens": 64, "extra_body": GREEDY}
    whole = messages.create(model=model, messages=asked, **options)
    with messages.stream(model=model, messages=asked, **options) as stream:
        streamed = stream.get_final_message()
    for message in (whole, streamed):
        assert message.content[0].type == "text"
        assert message.content[0].text == text[: text.index(stop)]
        assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", stop)
