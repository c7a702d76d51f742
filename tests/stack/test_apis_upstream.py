"""Both APIs over an upstream that thinks, calls tools, refuses and breaks: what no small model here does."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from aiohttp import web

from tests.stack.apis import anthropic_client
from tests.stack.stack import Stack, wait_until

MODEL = "scripted"
MANIFEST = """
apiVersion: enginehouse/v1
kind: Model
metadata: {{name: scripted}}
spec: {{context_length: 2048}}
---
apiVersion: enginehouse/v1
kind: Deployment
metadata: {{name: scripted}}
spec:
  model: scripted
  lane: openai-http
  target: theirs
  servers: [{{http: "{url}"}}]
"""
USAGE = {
    "prompt_tokens": 11,
    "completion_tokens": 9,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 5},
}
CALLS = [
    {"id": "call_a", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Brno"}'}},
    {"id": "call_b", "type": "function", "function": {"name": "time", "arguments": "{}"}},
]
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}}


class Upstream:
    """A chat server that says what it is told to; keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: dict[str, Any] = {}
        self.url = ""
        self.breaks = False
        self.endless = False
        self.left = threading.Event()
        """An endless answer's client is gone."""
        self.reason = "tool_calls"

    def message(self) -> dict[str, Any]:
        if self.reason != "tool_calls":
            return {"role": "assistant", "content": "Well"}
        return {"role": "assistant", "reasoning_content": "Hm.", "content": "I look.", "tool_calls": CALLS}

    async def chat(self, request: web.Request) -> web.StreamResponse:
        self.asked = await request.json()
        if not self.asked.get("stream"):
            choice = {"index": 0, "message": self.message(), "finish_reason": self.reason}
            return web.json_response({"choices": [choice], "usage": USAGE})
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        if self.endless:
            await self._go_on(response)
        for delta in self._deltas():
            await self._send(response, {"choices": [{"index": 0, "delta": delta}]})
        if self.breaks:
            await self._send(response, {"error": {"message": "inner words", "code": 500}})
            return response
        await self._send(response, {"choices": [{"index": 0, "delta": {}, "finish_reason": self.reason}]})
        await self._send(response, {"choices": [], "usage": USAGE})
        await response.write(b"data: [DONE]\n\n")
        return response

    async def _go_on(self, response: web.StreamResponse) -> None:
        """Until the client leaves."""
        left = self.left  # of this test, whenever this stream ends
        try:
            while True:
                await self._send(response, {"choices": [{"index": 0, "delta": {"content": "on "}}]})
                await asyncio.sleep(0.01)
        finally:
            left.set()

    def _deltas(self) -> Iterator[dict[str, Any]]:
        message = self.message()
        yield {"role": "assistant", "content": ""}
        yield from ({"reasoning_content": letter} for letter in message.get("reasoning_content", ""))
        yield from ({"content": letter} for letter in message["content"])
        for index, call in enumerate(message.get("tool_calls", ())):
            begun = {**call, "index": index, "function": {**call["function"], "arguments": ""}}
            yield {"tool_calls": [begun]}
            for letter in call["function"]["arguments"]:
                yield {"tool_calls": [{"index": index, "function": {"arguments": letter}}]}

    @staticmethod
    async def _send(response: web.StreamResponse, body: dict[str, Any]) -> None:
        await response.write(b"data: " + json.dumps(body).encode() + b"\n\n")

    @contextmanager
    def running(self) -> Iterator[None]:
        """Serves on a thread of its own; gone at the end."""
        ready, loop = threading.Event(), asyncio.new_event_loop()
        stop = asyncio.Event()

        async def models(_: web.Request) -> web.Response:
            return web.json_response({"object": "list", "data": [{"id": "theirs", "object": "model"}]})

        async def serve() -> None:
            app = web.Application()
            app.router.add_post("/v1/chat/completions", self.chat)
            app.router.add_get("/v1/models", models)
            app.router.add_get("/health", models)
            runner = web.AppRunner(app, handler_cancellation=True)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            ready.set()
            await stop.wait()
            await runner.cleanup()

        thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
        thread.start()
        try:
            assert ready.wait(10)
            yield
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join(10)
            loop.close()


@pytest.fixture(scope="module")
def served(stack: Stack) -> Iterator[Upstream]:
    """The scripted upstream as one more model of the stack."""
    upstream = Upstream()
    with upstream.running(), httpx2.Client(base_url=stack.origin, headers=stack.admin_headers) as admin:
        files = [{"name": "scripted.yaml", "text": MANIFEST.format(url=upstream.url)}]
        applied = admin.post("/admin/v1/apply", json={"files": files})
        assert applied.status_code == 200, applied.text

        def serves() -> bool:
            body = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}
            with httpx2.Client(base_url=stack.origin, headers=stack.headers, timeout=30) as fresh:
                return all(fresh.post("/v1/chat/completions", json=body).status_code == 200 for _ in range(4))

        wait_until(serves, 30, "every worker serves the upstream")
        yield upstream
        for kind in ("deployment", "model"):
            admin.delete(f"/admin/v1/objects/{kind}/{MODEL}")


@pytest.fixture
def upstream(served: Upstream) -> Upstream:
    served.breaks, served.endless, served.reason = False, False, "tool_calls"
    served.left = threading.Event()
    return served


def test_responses_with_tools(stack: Stack, upstream: Upstream) -> None:
    """Thinking, text and calls as items; the results go back as chat's own messages."""
    client = stack.client().responses
    tools: Any = [{"type": "function", "name": "weather", "parameters": WEATHER, "strict": True}]
    asked: list[Any] = [{"role": "user", "content": "Weather?"}]
    whole = client.create(model=MODEL, input=asked, tools=tools, tool_choice="required")
    assert upstream.asked["tools"][0]["function"]["name"] == "weather"
    assert upstream.asked["tool_choice"] == "required"
    assert upstream.asked["model"] == "theirs"
    assert [item.type for item in whole.output] == ["reasoning", "message", "function_call", "function_call"]
    assert whole.output_text == "I look."
    calls = [item for item in whole.output if item.type == "function_call"]
    assert [(c.call_id, c.name, c.arguments) for c in calls] == [
        ("call_a", "weather", '{"city":"Brno"}'),
        ("call_b", "time", "{}"),
    ]
    usage = whole.usage
    assert usage is not None
    assert (usage.input_tokens, usage.input_tokens_details.cached_tokens) == (11, 4)
    assert (usage.output_tokens, usage.output_tokens_details.reasoning_tokens) == (9, 5)
    with client.stream(model=MODEL, input=asked, tools=tools) as stream:
        last = [event.type for event in stream][-1]
        streamed = stream.get_final_response()
    assert last == "response.completed"
    assert [item.type for item in streamed.output] == [item.type for item in whole.output]
    assert streamed.output_text == "I look."
    results = [{"type": "function_call_output", "call_id": call.call_id, "output": "ok"} for call in calls]
    client.create(model=MODEL, input=[*asked, *whole.output, *results], tools=tools)  # type: ignore[list-item]
    assert [message["role"] for message in upstream.asked["messages"]] == [
        "user",
        "assistant",
        "tool",
        "tool",
    ]
    assert upstream.asked["messages"][1]["tool_calls"] == CALLS


def test_messages_with_tools(stack: Stack, upstream: Upstream) -> None:
    """Thinking where it was asked for, text and tool uses as blocks; results go back as chat's messages."""
    client = anthropic_client(stack).messages
    tools: Any = [{"name": "weather", "input_schema": WEATHER}]
    asked: list[Any] = [{"role": "user", "content": "Weather?"}]
    options: dict[str, Any] = {"model": MODEL, "max_tokens": 2000, "tools": tools}
    thinking: Any = {"type": "enabled", "budget_tokens": 1024}
    whole = client.create(messages=asked, thinking=thinking, tool_choice={"type": "any"}, **options)
    assert upstream.asked["tool_choice"] == "required"
    assert whole.stop_reason == "tool_use"
    assert [block.type for block in whole.content] == ["thinking", "text", "tool_use", "tool_use"]
    uses = [block for block in whole.content if block.type == "tool_use"]
    assert [(use.id, use.name, use.input) for use in uses] == [
        ("call_a", "weather", {"city": "Brno"}),
        ("call_b", "time", {}),
    ]
    assert (whole.usage.input_tokens, whole.usage.cache_read_input_tokens) == (7, 4)
    assert whole.usage.output_tokens == 9
    with client.stream(messages=asked, thinking=thinking, **options) as stream:
        streamed = stream.get_final_message()
    assert [block.model_dump() for block in streamed.content] == [b.model_dump() for b in whole.content]
    assert streamed.stop_reason == "tool_use"
    assert (streamed.usage.input_tokens, streamed.usage.output_tokens) == (7, 9)
    assert [b.type for b in client.create(messages=asked, **options).content] == [
        "text",
        "tool_use",
        "tool_use",
    ]
    results = [{"type": "tool_result", "tool_use_id": use.id, "content": "ok"} for use in uses]
    turn = [*asked, {"role": "assistant", "content": whole.content}, {"role": "user", "content": results}]
    client.create(messages=turn, **options)
    assert [message["role"] for message in upstream.asked["messages"]] == [
        "user",
        "assistant",
        "tool",
        "tool",
    ]
    assert [m["tool_call_id"] for m in upstream.asked["messages"][2:]] == ["call_a", "call_b"]


@pytest.mark.parametrize(
    ("reason", "status", "stop_reason"),
    [("content_filter", "incomplete", "refusal"), ("length", "incomplete", "max_tokens")],
)
def test_reasons_pass_through(
    stack: Stack, upstream: Upstream, reason: str, status: str, stop_reason: str
) -> None:
    upstream.reason = reason
    assert stack.client().responses.create(model=MODEL, input="Hi").status == status
    message = anthropic_client(stack).messages.create(
        model=MODEL, max_tokens=9, messages=[{"role": "user", "content": "Hi"}]
    )
    assert message.stop_reason == stop_reason


def cut_off(stack: Stack, path: str, body: dict[str, Any]) -> bytes:
    """What came of an answer until its connection closed without the end of HTTP."""
    got: list[bytes] = []
    with (
        httpx2.Client(headers=stack.headers, timeout=30) as client,
        client.stream("POST", f"{stack.base_url}/{path}", json=body) as answer,
        pytest.raises(httpx2.RemoteProtocolError),
    ):
        got.extend(answer.iter_bytes())
    return b"".join(got)


def test_a_stream_that_breaks_is_never_taken_for_whole(stack: Stack, upstream: Upstream) -> None:
    """The client learns of it in its API's words, and nothing of the upstream's."""
    upstream.breaks = True
    body = {"model": MODEL, "stream": True}
    asked = [{"role": "user", "content": "Hi"}]
    said = {"responses": {"input": "Hi"}, "messages": {"messages": asked, "max_tokens": 9}}
    for path, fields in said.items():
        got = cut_off(stack, path, body | fields)
        assert b"event: error\n" in got
        assert b"event: response.completed" not in got
        assert b"event: message_stop" not in got
        assert b"inner words" not in got
    with (
        pytest.raises(anthropic.APIError),
        anthropic_client(stack).messages.stream(
            model=MODEL,
            max_tokens=9,
            messages=asked,  # type: ignore[arg-type]
        ) as stream,
    ):
        stream.get_final_message()


def test_tokens_that_only_the_upstream_can_count_are_not_guessed(stack: Stack, upstream: Upstream) -> None:
    with pytest.raises(anthropic.BadRequestError, match="known to its server alone"):
        anthropic_client(stack).messages.count_tokens(
            model=MODEL, messages=[{"role": "user", "content": "Hi"}]
        )


def test_the_relay_is_as_it_was(stack: Stack, upstream: Upstream) -> None:
    """Chat completions still get the upstream's own bytes."""
    answer = stack.client().chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "Hi"}], stream=True
    )
    chunks = list(answer)
    assert isinstance(answer, openai.Stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "I look."
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize("path", ["responses", "messages"])
def test_a_client_leaving_mid_stream_is_told_to_the_upstream(
    stack: Stack, upstream: Upstream, path: str
) -> None:
    """Of an answer that never ends, so that nothing but the cancelled call can end it."""
    upstream.endless = True
    fields: dict[str, Any] = {"input": "Hi"}
    if path == "messages":
        fields = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 9}
    body = {"model": MODEL, "stream": True, **fields}
    with (
        httpx2.Client(headers=stack.headers, timeout=30) as client,
        client.stream("POST", f"{stack.base_url}/{path}", json=body) as answer,
    ):
        got, chunks = b"", answer.iter_bytes()  # kept: the client leaves with its last reference
        while got.count(b"on ") < 3:
            got += next(chunks)
        assert not upstream.left.is_set()
    assert upstream.left.wait(10)
