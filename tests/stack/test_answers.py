"""What goes over the wire: OpenAI's schema on every lane, tiers, metrics, traces, changes of the registry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.openai_schema import validate
from tests.stack.stack import Stack, events_of, wait_until

MODELS = ["house-chat", "house-chat:throughput", "depot-chat", "siding-chat", "yard-chat", "kiosk-chat"]
MESSAGES = [{"role": "user", "content": "Say hello in Japanese, with a train: 🚂"}]


def chat(model: str, **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": MESSAGES, "max_tokens": 24, "temperature": 0, **fields}


@pytest.mark.parametrize("model", MODELS)
def test_chat_answers_and_events_are_openais(http: httpx2.Client, model: str) -> None:
    """Every byte of it, on every lane; the last event carries the usage that was asked for."""
    whole = http.post("/v1/chat/completions", json=chat(model))
    validate("CreateChatCompletionResponse", whole.json())
    options = {"stream": True, "stream_options": {"include_usage": True}}
    events = events_of(http.post("/v1/chat/completions", json=chat(model, **options)).content)
    for event in events:
        validate("CreateChatCompletionStreamResponse", event)
    assert events[-1]["usage"]["total_tokens"] > 0
    assert events[-1]["choices"] == []
    assert len({event["id"] for event in events}) == 1


@pytest.mark.parametrize("model", ["house-chat", "depot-chat"])
def test_completions_are_openais(http: httpx2.Client, model: str) -> None:
    whole = http.post("/v1/completions", json={"model": model, "prompt": "The", "max_tokens": 4, "n": 2})
    validate("CreateCompletionResponse", whole.json())


def test_models_are_openais(http: httpx2.Client) -> None:
    validate("ListModelsResponse", http.get("/v1/models").json())
    validate("Model", http.get("/v1/models/house-chat").json())


def test_errors_are_openais_and_name_field_and_remedy(http: httpx2.Client) -> None:
    answer = http.post("/v1/chat/completions", json=chat("house-chat", temperature=9))
    assert answer.status_code == 400
    validate("ErrorResponse", answer.json())
    assert answer.json()["error"]["param"] == "temperature"


@pytest.mark.parametrize(
    ("tier", "served", "deployment"),
    [
        ("priority", "priority", "house-chat-latency"),
        ("flex", "flex", "house-chat-throughput"),
        ("auto", "priority", "house-chat-latency"),
    ],
)
def test_the_service_tier_chooses_the_profile(
    http: httpx2.Client, stack: Stack, tier: str, served: str, deployment: str
) -> None:
    """`auto` is the model's own default, which for the demo's chat model is latency."""
    answer = http.post("/v1/chat/completions", json=chat("house-chat", service_tier=tier))
    assert answer.json()["service_tier"] == served
    assert root_of(stack, answer.headers["x-trace-id"])["attributes"]["enginehouse.deployment"] == deployment


def test_a_callers_trace_goes_through(http: httpx2.Client, stack: Stack) -> None:
    """The caller's trace id; gateway → route → attempt → first token → finish; tokens, and no content."""
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    http.post(
        "/v1/chat/completions",
        json=chat("house-chat", stream=True),
        headers={"traceparent": f"00-{trace_id}-00f067aa0ba902b7-01"},
    )
    root = root_of(stack, trace_id)
    assert root["parent_id"] == "00f067aa0ba902b7"
    assert root["attributes"]["gen_ai.usage.output_tokens"] > 0
    spans = {span["name"]: span for span in spans_of(stack, trace_id)}
    assert set(spans) == {"chat house-chat", "route", "attempt", "first token", "finish"}
    assert spans["attempt"]["parent_id"] == root["span_id"]
    assert spans["first token"]["parent_id"] == spans["attempt"]["span_id"]
    assert "Japanese" not in json.dumps(list(spans.values()), ensure_ascii=False)
    assert "Japanese" not in stack.logs()


def test_metrics_count_requests_of_all_workers(http: httpx2.Client) -> None:
    """One page for the whole gateway, whichever worker answers."""

    def finished() -> float:
        lines = http.get("/metrics").text.splitlines()
        series = [line for line in lines if line.startswith("enginehouse_requests_total{")]
        return sum(float(line.rpartition(" ")[2]) for line in series if 'model="depot-chat"' in line)

    before = finished()
    for _ in range(6):
        with httpx2.Client(base_url=http.base_url, headers=http.headers) as fresh:
            fresh.post("/v1/chat/completions", json=chat("depot-chat", max_tokens=1))
    wait_until(lambda: finished() == before + 6, 5, "all six are counted")


def test_a_change_reaches_every_worker(http: httpx2.Client, stack: Stack) -> None:
    """A new alias serves at whichever worker the next connection lands, and is gone as soon."""
    manifest = """
apiVersion: enginehouse/v1
kind: Model
metadata: {name: house-chat-two}
spec: {context_length: 2048, aliases: [second]}
"""
    body = {"files": [{"name": "two.yaml", "text": manifest}]}

    def seen() -> list[int]:
        statuses = []
        for _ in range(8):
            with httpx2.Client(base_url=http.base_url, headers=http.headers) as fresh:
                statuses.append(fresh.get("/v1/models/second").status_code)
        return statuses

    applied = http.post("/admin/v1/apply", json=body, headers=stack.admin_headers)
    assert applied.status_code == 200, applied.text
    wait_until(lambda: set(seen()) == {200}, 2, "every worker knows the alias")
    gone = http.delete("/admin/v1/objects/model/house-chat-two", headers=stack.admin_headers)
    assert gone.status_code == 200
    wait_until(lambda: set(seen()) == {404}, 2, "every worker has forgotten it")


def test_the_admin_api_is_not_for_everybody(http: httpx2.Client, stack: Stack) -> None:
    assert http.get("/admin/v1/objects/models").status_code == 403
    assert httpx2.get(f"{stack.origin}/admin/v1/objects/models").status_code == 401


def spans_of(stack: Stack, trace_id: str) -> list[dict[str, Any]]:
    lines = Path(stack.ready["trace_file"]).read_text().splitlines()
    return [span for line in lines if trace_id in line and (span := json.loads(line))["trace_id"] == trace_id]


def root_of(stack: Stack, trace_id: str) -> dict[str, Any]:
    """The gateway's span, once it was exported."""

    def found() -> list[dict[str, Any]]:
        return [span for span in spans_of(stack, trace_id) if span["kind"] == "server"]

    wait_until(found, 15, f"trace {trace_id} is written")
    return found()[0]
