"""Tool calls and thoughts on every Triton lane, by the official `openai` SDK.

The engines say what the test wrote down; in ASCII where servers of text damage other letters in streams.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx2
import openai
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionChunk

from inference.tokenizer import ModelTokenizer
from tests.openai_schema import validate
from tests.stack.parsed_models import FAMILIES, PLAIN, THINKING, family_model
from tests.stack.stack import ROOT, Stack, events_of

MODELS = ["house-chat:latency", "yard-chat", "kiosk-chat", "depot-chat", "siding-chat"]
"""Bare, ensemble, BLS, llmapi, vLLM."""
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {"name": "get_weather", "description": "Now.", "parameters": PARAMETERS},
    },
    {"type": "function", "function": {"name": "get_time", "parameters": PARAMETERS}},
]
ASK = {"role": "user", "content": "How is Brno?"}
BRNO, PRAGUE = '{"city": "Brno", "note": "a \\"}\\" b"}', '{"city": "Praha"}'
ONE = f'Let me see.\n<tool_call>\n{{"name": "get_weather", "arguments": {BRNO}}}\n</tool_call>'
TWO = f'{ONE}\n<tool_call>\n{{"name": "get_time", "arguments": {PRAGUE}}}\n</tool_call>'


@pytest.fixture
def client(stack: Stack) -> OpenAI:
    return stack.client()


@pytest.fixture(autouse=True)
def no_script_is_left(stack: Stack) -> Iterator[None]:
    yield
    stack.script()


def said(model: str, text: str) -> int:
    """Tokens of an answer, by the model's own tokenizer."""
    weights = "depot-chat" if model.startswith(("depot", "siding")) else "house-chat"
    return ModelTokenizer.load(ROOT / "emulator" / "models" / weights).count(text)


def whole(client: OpenAI, model: str, messages: list[Any], **fields: Any) -> Any:
    fields.setdefault("tools", TOOLS)
    answer = client.chat.completions.create(model=model, messages=messages, temperature=0, **fields)
    validate("CreateChatCompletionResponse", answer.model_dump(mode="json", exclude_unset=True))
    return answer


def streamed(client: OpenAI, model: str, messages: list[Any], **fields: Any) -> dict[str, Any]:
    """One choice's message and its end, put together from a stream's events."""
    fields.setdefault("tools", TOOLS)
    options: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}, "temperature": 0}
    chunks = list(client.chat.completions.create(model=model, messages=messages, **options, **fields))
    for chunk in chunks:
        validate("CreateChatCompletionStreamResponse", chunk.model_dump(mode="json", exclude_unset=True))
    return put_together(chunks)


def put_together(chunks: list[ChatCompletionChunk]) -> dict[str, Any]:
    content, thoughts, calls, reason = "", "", [], None
    for chunk in chunks:
        for choice in chunk.choices:
            content += choice.delta.content or ""
            thoughts += getattr(choice.delta, "reasoning_content", None) or ""
            reason = choice.finish_reason or reason
            for call in choice.delta.tool_calls or []:
                assert call.function is not None
                if call.id is not None:
                    assert call.index == len(calls)
                    calls.append([call.function.name, ""])
                calls[call.index][1] += call.function.arguments or ""
    assert chunks[-1].usage is not None
    tokens = chunks[-1].usage.completion_tokens
    return {"content": content, "thoughts": thoughts, "calls": calls, "reason": reason, "tokens": tokens}


def summed_up(answer: Any) -> dict[str, Any]:
    """A whole answer as `put_together` gives a streamed one."""
    message = answer.choices[0].message
    return {
        "content": message.content or "",
        "thoughts": getattr(message, "reasoning_content", None) or "",
        "calls": [[call.function.name, call.function.arguments] for call in message.tool_calls or []],
        "reason": answer.choices[0].finish_reason,
        "tokens": answer.usage.completion_tokens,
    }


@pytest.mark.parametrize("model", MODELS)
def test_a_conversation_with_a_tool(client: OpenAI, stack: Stack, model: str) -> None:
    """The model calls, the client answers, the model goes on: its prompt holds tools, call and result."""
    stack.script(("How is Brno?", ONE), ("<tool_response>\n21 degrees\n</tool_response>", "It is warm."))
    first = whole(client, model, [ASK])
    message = first.choices[0].message
    assert first.choices[0].finish_reason == "tool_calls"
    assert message.content == "Let me see.\n"
    (call,) = message.tool_calls
    assert (call.type, call.function.name, call.function.arguments) == ("function", "get_weather", BRNO)
    assert first.usage.completion_tokens == said(model, ONE)
    result = {"role": "tool", "tool_call_id": call.id, "content": "21 degrees"}
    second = whole(client, model, [ASK, message.model_dump(), result])
    assert (second.choices[0].message.content, second.choices[0].finish_reason) == ("It is warm.", "stop")
    assert second.choices[0].message.tool_calls is None
    assert second.usage.prompt_tokens > first.usage.prompt_tokens > 100


@pytest.mark.parametrize("model", MODELS)
def test_streamed_calls_are_the_whole_answers(client: OpenAI, stack: Stack, model: str) -> None:
    """Two calls at once: names, every letter of the arguments, reason and usage."""
    stack.script(("How is Brno?", TWO))
    answer = streamed(client, model, [ASK])
    assert answer == summed_up(whole(client, model, [ASK]))
    assert answer["calls"] == [["get_weather", BRNO], ["get_time", PRAGUE]]
    assert (answer["reason"], answer["tokens"]) == ("tool_calls", said(model, TWO))
    single = streamed(client, model, [ASK], parallel_tool_calls=False)
    assert single["calls"] == [["get_weather", BRNO]]
    assert single == summed_up(whole(client, model, [ASK], parallel_tool_calls=False))


FORMS = {
    "llama3_json": '{"name": "get_weather", "parameters": {"city": "Brno"}}; '
    '{"name": "get_time", "parameters": {"city": "Praha"}}',
    "mistral": '[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Brno"}}, '
    '{"name": "get_time", "arguments": {"city": "Praha"}}]',
    "pythonic": '[get_weather(city="Brno"), get_time(city="Praha")]',
}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_calls(client: OpenAI, stack: Stack, family: str) -> None:
    stack.script(("How is Brno?", FORMS[family]))
    answer = streamed(client, family_model(family), [ASK])
    assert answer == summed_up(whole(client, family_model(family), [ASK]))
    assert answer["calls"] == [["get_weather", '{"city": "Brno"}'], ["get_time", '{"city": "Praha"}']]
    assert (answer["content"], answer["reason"]) == ("", "tool_calls")


@pytest.mark.parametrize("model", THINKING)
def test_thoughts_are_told_from_the_answer(client: OpenAI, stack: Stack, model: str) -> None:
    """Streamed as whole, with tools and without; and left out where they are not wanted."""
    stack.script(("How is Brno?", f"<think>\nHm, well.\n</think>\n\n{ONE}"), ("Hi", "<think>\na</think>b"))
    answer = streamed(client, model, [ASK])
    assert answer == summed_up(whole(client, model, [ASK]))
    assert (answer["thoughts"], answer["content"]) == ("Hm, well.\n", "Let me see.\n")
    assert answer["calls"] == [["get_weather", BRNO]]
    hi: list[Any] = [{"role": "user", "content": "Hi"}]
    plain = streamed(client, model, hi, tools=openai.NOT_GIVEN)
    assert (plain["thoughts"], plain["content"], plain["reason"]) == ("a", "b", "stop")
    hidden = streamed(client, model, hi, tools=openai.NOT_GIVEN, extra_body={"include_reasoning": False})
    assert (hidden["thoughts"], hidden["content"], hidden["tokens"]) == ("", "b", plain["tokens"])


def test_a_stop_string_and_a_limit_cut_a_call(client: OpenAI, stack: Stack) -> None:
    """What was written until then is there, and the reason is the true one."""
    stack.script(("How is Brno?", ONE))
    cut = streamed(client, "house-chat:latency", [ASK], max_tokens=20)
    assert cut == summed_up(whole(client, "house-chat:latency", [ASK], max_tokens=20))
    assert (cut["reason"], cut["tokens"]) == ("length", 20)
    stopped = streamed(client, "house-chat:latency", [ASK], stop=["Brno"])
    assert stopped["calls"] == [["get_weather", '{"city": "']]
    assert stopped["reason"] == "tool_calls"


def test_without_a_choice_of_tools_nothing_is_a_call(client: OpenAI, stack: Stack) -> None:
    """`none` keeps the tools from the prompt and the text as it is."""
    stack.script(("How is Brno?", ONE))
    answer = whole(client, "house-chat:latency", [ASK], tool_choice="none")
    assert summed_up(answer)["content"] == ONE
    assert answer.choices[0].message.tool_calls is None
    bare = whole(client, "house-chat:latency", [ASK], tools=openai.NOT_GIVEN)
    assert bare.usage.prompt_tokens == answer.usage.prompt_tokens


def test_log_probabilities_are_neither_lost_nor_doubled(client: OpenAI, stack: Stack) -> None:
    """One for every token of the answer, streamed as whole, whatever part the token belongs to."""
    stack.script(("How is Brno?", f"<think>hm</think>{TWO} done"))
    answer = whole(client, "house-thinks", [ASK], logprobs=True)
    entries = [entry.token for entry in answer.choices[0].logprobs.content]
    assert len(entries) == answer.usage.completion_tokens
    events = client.chat.completions.create(
        model="house-thinks",
        messages=[ASK],
        tools=TOOLS,
        temperature=0,
        logprobs=True,
        stream=True,  # type: ignore[list-item]
    )
    seen = [e.token for c in events if c.choices[0].logprobs for e in c.choices[0].logprobs.content or []]
    assert seen == entries


def test_several_choices_have_calls_of_their_own(client: OpenAI, stack: Stack) -> None:
    stack.script(("How is Brno?", TWO))
    answer = whole(client, "house-chat:latency", [ASK], n=3)
    ids = [call.id for choice in answer.choices for call in choice.message.tool_calls]
    assert len(set(ids)) == 6


def test_what_cannot_be_served_is_refused_with_a_remedy(client: OpenAI, stack: Stack) -> None:
    def refusal(model: str, **fields: Any) -> openai.BadRequestError:
        with pytest.raises(openai.BadRequestError) as caught:
            whole(client, model, [ASK], **fields)
        return caught.value

    assert refusal(PLAIN).param == "tools"
    assert "tool_parser" in refusal(PLAIN).message
    kwargs = {"chat_template_kwargs": {"enable_thinking": False}}
    assert refusal("house-chat", extra_body=kwargs).param == "chat_template_kwargs.enable_thinking"
    assert refusal("house-chat", reasoning_effort="high").param == "reasoning_effort"
    assert refusal("house-chat", functions=[{"name": "f"}], tools=openai.NOT_GIVEN).param == "functions"
    unanswered: list[Any] = [ASK, {"role": "tool", "tool_call_id": "call_x", "content": "1"}]
    with pytest.raises(openai.BadRequestError) as caught:
        whole(client, "house-chat", unanswered)
    assert caught.value.param == "messages[1].tool_call_id"


def test_calls_are_openais_on_the_wire(stack: Stack) -> None:
    """Every event as it was sent; arguments arrive in pieces, with all letters."""
    arguments = '{"city": "Žďár 🚂", "note": "<tool_call>"}'
    call = f'<tool_call>{{"name": "get_weather", "arguments": {arguments}}}</tool_call>'
    stack.script(("How is Brno?", call))
    body = {"model": "house-chat:latency", "messages": [ASK], "tools": TOOLS, "stream": True}
    with httpx2.Client(base_url=stack.origin, headers=stack.headers, timeout=60) as http:
        events = events_of(http.post("/v1/chat/completions", json=body).content)
    for event in events:
        validate("CreateChatCompletionStreamResponse", event)
    deltas = [call for e in events for call in e["choices"][0]["delta"].get("tool_calls", ())]
    fragments = [call["function"]["arguments"] for call in deltas]
    assert len(fragments) > 3
    assert "".join(fragments) == arguments
