"""Requests that OpenAI's schema calls valid and that we must take.

The schema is wider than the API it describes (it lets `max_tokens` be negative), so `sane` narrows what is
drawn to what the reference's prose allows.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any, Literal

from tests.fuzz.generate import TEXTS, Generator

Kind = Literal["chat", "completion"]
SCHEMAS: dict[Kind, str] = {"chat": "CreateChatCompletionRequest", "completion": "CreateCompletionRequest"}
MOST_CHOICES = 16


def valid_requests(kind: Kind, seed: int, model: str = "demo") -> Iterator[dict[str, Any]]:
    """Endless; the same seed gives the same requests."""
    random = Random(seed)
    generator = Generator(random)
    while True:
        yield sane(generator.draw(SCHEMAS[kind]), random, model)


def sane(request: dict[str, Any], random: Random, model: str) -> dict[str, Any]:
    """`request` narrowed to what the reference's prose allows."""
    request["model"] = model
    for name in ("max_tokens", "max_completion_tokens"):
        if request.get(name) is not None:
            request[name] = 1 + abs(request[name]) % 4
    if request.get("max_completion_tokens") is not None:
        request.pop("max_tokens", None)
    if request.get("stop") is not None:
        request["stop"] = random.choice(["\n", ["END"], ["a", "žluť", "🧵", "\n\n"]])
    if request.get("logit_bias"):
        request["logit_bias"] = {key: bias % 101 for key, bias in request["logit_bias"].items()}
    if not request.get("stream"):
        request.pop("stream_options", None)
    if request.get("top_logprobs"):
        request["logprobs"] = True
    elif "top_logprobs" in request:
        request["top_logprobs"] = 0  # half of the schema's `allOf` forbids null
    _make_tools_sane(request)
    for i, message in enumerate(request.get("messages", ())):
        request["messages"][i] = _sane_message(message)
    if "prompt" in request:
        request["prompt"] = _sane_prompt(request["prompt"])
    if (form := request.get("response_format")) is not None and "json_schema" in form:
        form["json_schema"]["name"] = "a-name_1"
    _sane_choices(request)
    return request


def _sane_choices(request: dict[str, Any]) -> None:
    """As many answers as are allowed in one request, and none that would be thrown away."""
    prompts = request.get("prompt")
    several = isinstance(prompts, list) and not isinstance(prompts[0], int)
    if request.get("n") is not None:
        request["n"] = 1 + request["n"] % (MOST_CHOICES // (len(prompts) if several and prompts else 1))
    if request.get("best_of"):
        request["best_of"] = request.get("n") or 1


def _make_tools_sane(request: dict[str, Any]) -> None:
    """Names of the allowed letters, each once, and no choice among tools that are not there."""
    functions = [tool["function"] for tool in request.get("tools") or () if tool["type"] == "function"]
    for i, function in enumerate(functions):
        function["name"] = f"tool_{i}"
    choice = request.get("tool_choice")
    if not request.get("tools") or (isinstance(choice, dict) and "function" in choice and not functions):
        request.pop("tool_choice", None)
    elif isinstance(choice, dict) and "function" in choice:
        choice["function"]["name"] = "tool_0"


def _sane_message(message: dict[str, Any]) -> dict[str, Any]:
    called = message.get("tool_calls") or message.get("function_call") or message.get("audio")
    if message.get("content") is None and not called and message.get("refusal") is None:
        message["content"] = TEXTS[2]
    return message


def _sane_prompt(prompt: Any) -> Any:
    """No empty list, and token ids from 0."""
    if isinstance(prompt, list):
        return [abs(p) if isinstance(p, int) else _sane_prompt(p) for p in prompt] or ["a"]
    return prompt
