"""What users of the stack do: hold a conversation, look up its trace, look at a dashboard."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any

from openai import OpenAI, OpenAIError
from openai.types.chat import ChatCompletionMessageParam

from bench.containers.docker import ROOT, StepError

MODEL = "house-chat"
QUESTIONS = ("What is an enginehouse?", "And who works there?")
DASHBOARDS = ROOT / "deploy" / "compose" / "grafana" / "dashboards"
ANSWERS_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Conversation:
    """Two questions and their streamed answers."""

    trace: str
    first_token_s: float
    chunks: int
    answers: tuple[str, ...]


class Client:
    """Talks to the stack through its published ports."""

    def __init__(self, base_url: str, key: str, jaeger: str, prometheus: str) -> None:
        self._openai = OpenAI(base_url=base_url, api_key=key, timeout=60, max_retries=0)
        self._jaeger, self._prometheus = jaeger, prometheus

    def converse(self) -> Conversation:
        """Stream two turns under one trace. Raises StepError."""
        trace, messages = token_hex(16), list[ChatCompletionMessageParam]()
        answers, chunks, first_s = list[str](), 0, 0.0
        begun_s = time.monotonic()
        for question in QUESTIONS:
            messages.append({"role": "user", "content": question})
            try:
                stream = self._openai.chat.completions.create(
                    model=MODEL,
                    messages=messages,
                    max_tokens=48,
                    stream=True,
                    extra_headers={"traceparent": f"00-{trace}-{token_hex(8)}-01"},
                )
                texts = []
                for chunk in stream:
                    text = chunk.choices[0].delta.content if chunk.choices else None
                    if text:
                        first_s = first_s or time.monotonic() - begun_s
                        texts.append(text)
            except OpenAIError as error:
                raise StepError(f"the conversation broke off: {error}") from error
            chunks += len(texts)
            answers.append("".join(texts))
            messages.append({"role": "assistant", "content": answers[-1]})
        if not all(answers):
            raise StepError(f"an answer was empty: {answers}")
        return Conversation(trace, first_s, chunks, tuple(answers))

    def answers(self) -> bool:
        """Whether a short question is answered now."""
        quick = self._openai.with_options(timeout=ANSWERS_TIMEOUT_S)
        try:
            quick.chat.completions.create(
                model=MODEL, messages=[{"role": "user", "content": "Hello"}], max_tokens=2
            )
        except OpenAIError:
            return False
        return True

    def spans(self, trace: str) -> list[str]:
        """Names of a trace's spans, as Jaeger's query API tells; none while it is not there."""
        try:
            found = _json(f"{self._jaeger}/api/traces/{trace}")
        except (urllib.error.URLError, OSError):
            return []
        return [span["operationName"] for one in found.get("data") or [] for span in one["spans"]]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """What Prometheus answers. Raises StepError for an expression that it cannot read."""
        words = urllib.parse.urlencode({"query": expression})
        try:
            found: list[dict[str, Any]] = _json(f"{self._prometheus}/api/v1/query?{words}")["data"]["result"]
        except urllib.error.HTTPError as error:
            raise StepError(f"Prometheus refuses {expression}: {error.read().decode()[:300]}") from error
        except OSError:
            return []
        return found

    def dashboards(self) -> dict[str, int]:
        """How many expressions of the dashboards Prometheus answers, and how many have values now."""
        boards = sorted(DASHBOARDS.glob("*.json"))
        targets = [target for board in boards for panel in panels_of(board) for target in panel["targets"]]
        answered = sum(bool(self.query(with_values(target["expr"]))) for target in targets)
        return {"expressions": len(targets), "with_values": answered}


def panels_of(dashboard: Path) -> list[dict[str, Any]]:
    """The panels of a dashboard that ask Prometheus."""
    panels = json.loads(dashboard.read_text())["panels"]
    return [panel for panel in panels if panel.get("datasource", {}).get("type") == "prometheus"]


def with_values(expression: str) -> str:
    """An expression with values for Grafana's variables: everything, and a minute for rates."""
    for variable, value in {"$__rate_interval": "1m", "$model": ".*", "$profile": ".*"}.items():
        expression = expression.replace(variable, value)
    return expression


def _json(url: str) -> Any:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=10) as response:
        return json.load(response)
