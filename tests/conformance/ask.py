"""Ask: one model of a running gateway, asked over HTTP as any client would."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import httpx2 as httpx

from inference.tokenizer import ModelTokenizer

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
REFUSALS = frozenset({"unsupported_parameter", "no_tokenizer"})
"""Codes of a 400 that says: this lane cannot do it."""


class RefusedError(Exception):
    """The gateway said that this lane cannot do what was asked."""


@dataclass(frozen=True)
class Ask:
    """Calls of one model. Raises RefusedError for a refusal, AssertionError for anything unexpected."""

    client: httpx.Client
    model: str
    tokenizer: ModelTokenizer | None = None
    """Of the model, to count with; None where it is not known to the probes."""
    adapter: str | None = None
    """LoRA adapter of the model, by its own name."""
    lane: str = ""

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = self._checked(
            self.client.post(path, json={"model": self.model, **body})
        ).json()
        return answer

    def events(self, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        """The JSON of every event of a streamed answer; the end mark is checked where the API has one."""
        reply = self._checked(self.client.post(path, json={"model": self.model, **body, "stream": True}))
        lines = [line[6:] for line in reply.text.splitlines() if line.startswith("data: ")]
        if path.endswith("/completions"):
            assert lines, "an empty stream"
            assert lines[-1] == "[DONE]", f"the stream ends with {lines[-1][:80]}"
        return [json.loads(line) for line in lines if line != "[DONE]"]

    def chat(self, **fields: Any) -> dict[str, Any]:
        body = {"messages": QUESTION, "temperature": 0, "max_tokens": 48, **fields}
        return self.post("/v1/chat/completions", body)

    def chat_events(self, **fields: Any) -> list[dict[str, Any]]:
        body = {"messages": QUESTION, "temperature": 0, "max_tokens": 48, **fields}
        return self.events("/v1/chat/completions", body)

    def completion(self, **fields: Any) -> dict[str, Any]:
        return self.post(
            "/v1/completions", {"prompt": "The engine", "temperature": 0, "max_tokens": 12, **fields}
        )

    def text(self, **fields: Any) -> str:
        """The whole answer's text."""
        return content(self.chat(**fields))

    @cached_property
    def plain(self) -> str:
        """What the model says when nothing special is asked."""
        return self.text()

    def with_adapter(self) -> Ask:
        """The same model computed with its adapter. Raises RefusedError where there is none."""
        if self.adapter is None:
            raise RefusedError(f"No LoRA adapter is set up for the {self.lane} lane.")
        return replace(self, model=f"{self.model}+{self.adapter}")

    def _checked(self, reply: httpx.Response) -> httpx.Response:
        if reply.status_code == 400 and (error := reply.json()["error"]).get("code") in REFUSALS:
            raise RefusedError(error["message"])
        assert reply.status_code == 200, f"{reply.status_code}: {reply.text[:300]}"
        return reply


def content(answer: dict[str, Any]) -> str:
    return answer["choices"][0]["message"]["content"] or ""


def streamed(events: list[dict[str, Any]], index: int = 0) -> str:
    """The text of one choice of a streamed chat answer."""
    return "".join(
        choice["delta"].get("content") or ""
        for event in events
        for choice in event["choices"]
        if choice["index"] == index
    )


def reason(answer: dict[str, Any]) -> str:
    return str(answer["choices"][0]["finish_reason"])
