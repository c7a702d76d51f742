"""One scripted conversation by each SDK: an answer, a stream, a tool call and its result, structured output.

Run by an interpreter that has the SDKs: `python tests/clients/conversations.py CLIENT BASE_URL KEY MODEL`.
Imports nothing of the project. Exits with 0 when everything was as it should be; prints what was seen.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, Field

QUESTION = "What is the capital of France?"
TOOL_NAME = "look_up"
PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 12}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOL = {
    "type": "function",
    "function": {"name": TOOL_NAME, "description": "Looks a city up.", "parameters": PARAMETERS},
}
RESULT = "Paris has two million people."


class City(BaseModel):
    """What structured output must be."""

    name: str = Field(max_length=12)
    large: bool


def check(true: object, what: str) -> None:
    if not true:
        raise AssertionError(what)


def with_openai(base_url: str, key: str, model: str) -> dict[str, Any]:
    import openai

    client = openai.OpenAI(base_url=base_url, api_key=key, max_retries=0)
    messages: list[Any] = [{"role": "user", "content": QUESTION}]
    whole = client.chat.completions.create(model=model, messages=messages, temperature=0)
    events = list(client.chat.completions.create(model=model, messages=messages, temperature=0, stream=True))
    text = "".join(e.choices[0].delta.content or "" for e in events if e.choices)
    check(text == whole.choices[0].message.content, "streamed text is the whole text")
    with client.chat.completions.stream(
        model=model,
        messages=messages,
        temperature=0,
        tools=[TOOL],
        tool_choice="required",  # type: ignore[list-item]
    ) as stream:
        called = stream.get_final_completion().choices[0].message
    call = called.tool_calls[0]  # type: ignore[index]
    check(json.loads(call.function.arguments).keys() == {"city"}, "arguments are the schema's")
    messages += [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.function.name, "arguments": call.function.arguments},
                }
            ],
        },
        {"role": "tool", "tool_call_id": call.id, "content": RESULT},
    ]
    final = client.chat.completions.create(model=model, messages=messages, tools=[TOOL])  # type: ignore[list-item]
    check(final.choices[0].message.content, "an answer after the tool's result")
    parsed = client.chat.completions.parse(model=model, messages=messages[:1], response_format=City)
    check(isinstance(parsed.choices[0].message.parsed, City), "structured output parses")
    response = client.responses.create(model=model, input=QUESTION, temperature=0)
    check(response.output_text == text, "the Responses API says the same")
    return {"text": text, "arguments": call.function.arguments}


def with_anthropic(base_url: str, key: str, model: str) -> dict[str, Any]:
    import anthropic

    client = anthropic.Anthropic(base_url=base_url.removesuffix("/v1"), api_key=key, max_retries=0)
    messages: list[Any] = [{"role": "user", "content": QUESTION}]
    shared: dict[str, Any] = {"model": model, "max_tokens": 200, "extra_body": {"temperature": 0}}
    whole = client.messages.create(messages=messages, **shared)
    with client.messages.stream(messages=messages, **shared) as stream:
        text = "".join(stream.text_stream)
    check(text == whole.content[0].text, "streamed text is the whole text")  # type: ignore[union-attr]
    tools: list[Any] = [{"name": TOOL_NAME, "description": "Looks a city up.", "input_schema": PARAMETERS}]
    called = client.messages.create(messages=messages, tools=tools, tool_choice={"type": "any"}, **shared)
    call = next(block for block in called.content if block.type == "tool_use")
    check(called.stop_reason == "tool_use", "stopped for the tool")
    result = {"type": "tool_result", "tool_use_id": call.id, "content": RESULT}
    messages += [{"role": "assistant", "content": called.content}, {"role": "user", "content": [result]}]
    final = client.messages.create(messages=messages, tools=tools, **shared)
    check(final.content, "an answer after the tool's result")
    return {"text": text, "arguments": json.dumps(call.input)}


def with_langchain(base_url: str, key: str, model: str) -> dict[str, Any]:
    from langchain_core.messages import HumanMessage, ToolMessage
    from langchain_openai import ChatOpenAI

    chat = ChatOpenAI(model=model, base_url=base_url, api_key=key, temperature=0, max_retries=0)  # type: ignore[arg-type]
    whole = chat.invoke(QUESTION)
    text = "".join(str(chunk.content) for chunk in chat.stream(QUESTION))
    check(text == whole.content, "streamed text is the whole text")
    asked = HumanMessage(QUESTION)
    called = chat.bind_tools([TOOL], tool_choice="required").invoke([asked])
    call = called.tool_calls[0]
    check(call["args"].keys() == {"city"}, "arguments are the schema's")
    result = ToolMessage(RESULT, tool_call_id=call["id"])
    final = chat.bind_tools([TOOL]).invoke([asked, called, result])
    check(final.content, "an answer after the tool's result")
    parsed = chat.with_structured_output(City, method="json_schema").invoke(QUESTION)
    check(isinstance(parsed, City), "structured output parses")
    return {"text": text, "arguments": json.dumps(call["args"])}


def with_llamaindex(base_url: str, key: str, model: str) -> dict[str, Any]:
    from llama_index.core.base.llms.types import ChatMessage
    from llama_index.core.tools import FunctionTool
    from llama_index.llms.openai_like import OpenAILike

    llm = OpenAILike(
        model=model,
        api_base=base_url,
        api_key=key,
        is_chat_model=True,
        is_function_calling_model=True,
        temperature=0,
        max_retries=0,
        max_tokens=200,
    )
    asked = ChatMessage(role="user", content=QUESTION)
    whole = llm.chat([asked])
    text = "".join(chunk.delta or "" for chunk in llm.stream_chat([asked]))
    check(text == whole.message.content, "streamed text is the whole text")

    def look_up(city: str) -> str:
        """Looks a city up."""
        return f"{city}: {RESULT}"

    tool = FunctionTool.from_defaults(look_up)
    called = llm.chat_with_tools([tool], chat_history=[asked], tool_required=True)
    call = llm.get_tool_calls_from_response(called)[0]
    check(call.tool_name == TOOL_NAME, "the tool is called")
    result = ChatMessage(role="tool", content=RESULT, additional_kwargs={"tool_call_id": call.tool_id})
    final = llm.chat_with_tools([tool], chat_history=[asked, called.message, result])
    check(final.message.content, "an answer after the tool's result")
    return {"text": text, "arguments": json.dumps(call.tool_kwargs)}


def with_litellm(base_url: str, key: str, model: str) -> dict[str, Any]:
    import litellm

    litellm.telemetry = False
    shared: dict[str, Any] = {
        "model": f"openai/{model}",
        "api_base": base_url,
        "api_key": key,
        "temperature": 0,
    }
    messages: list[Any] = [{"role": "user", "content": QUESTION}]
    whole = litellm.completion(messages=messages, **shared)
    chunks = list(litellm.completion(messages=messages, stream=True, **shared))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    check(text == whole.choices[0].message.content, "streamed text is the whole text")
    called = litellm.completion(messages=messages, tools=[TOOL], tool_choice="required", **shared)
    message = called.choices[0].message
    call = message.tool_calls[0]
    check(json.loads(call.function.arguments).keys() == {"city"}, "arguments are the schema's")
    messages += [message.model_dump(), {"role": "tool", "tool_call_id": call.id, "content": RESULT}]
    final = litellm.completion(messages=messages, tools=[TOOL], **shared)
    check(final.choices[0].message.content, "an answer after the tool's result")
    parsed = litellm.completion(messages=messages[:1], response_format=City, **shared)
    City.model_validate_json(parsed.choices[0].message.content)
    return {"text": text, "arguments": call.function.arguments}


CLIENTS: dict[str, Callable[[str, str, str], dict[str, Any]]] = {
    "openai": with_openai,
    "anthropic": with_anthropic,
    "langchain": with_langchain,
    "llamaindex": with_llamaindex,
    "litellm": with_litellm,
}

if __name__ == "__main__":
    name, *where = sys.argv[1:]
    print(json.dumps(CLIENTS[name](*where)))
