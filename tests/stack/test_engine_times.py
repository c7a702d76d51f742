"""What real engines tell of their own times: in the request's trace, and in the reports to the controller."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from tests.stack.stack import Stack, wait_until
from tests.stack.test_answers import root_of, spans_of

PARTS = ("queue_s", "prefill_s", "decode_s")


def group(stack: Stack, model: str) -> dict[str, Any]:
    """The model's counts, of all its profiles and workers."""
    answer = httpx2.get(f"{stack.origin}/admin/v1/demand", headers=stack.admin_headers, timeout=30)
    counts: dict[str, Any] = {}
    for name, told in answer.json()["groups"].items():
        if name.startswith(f"{model}:"):
            counts |= {key: counts.get(key, 0) + value for key, value in told.items()}
    return counts


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("model", ["house-chat", "yard-chat", "kiosk-chat", "depot-chat"])
def test_engines_tell_of_every_triton_lane(stack: Stack, model: str, stream: bool) -> None:
    before = group(stack, model)
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "Who is Ada?"}],
        "max_tokens": 12,
        "stream": stream,
        "temperature": 0,
    }
    answer = httpx2.post(f"{stack.origin}/v1/chat/completions", json=body, headers=stack.headers, timeout=60)
    assert answer.status_code == 200
    root_of(stack, answer.headers["x-trace-id"])
    spans = spans_of(stack, answer.headers["x-trace-id"])
    (attempt,) = [one for one in spans if one["name"] == "attempt"]
    times = [attempt["attributes"][f"enginehouse.engine.{part}"] for part in PARTS]
    assert min(times) >= 0
    took_s = (attempt["end_ns"] - attempt["start_ns"]) / 1e9
    assert 0 < sum(times) <= took_s + 0.01, "the engine's part of the attempt"
    wait_until(
        lambda: group(stack, model)["engine_timed"] > before.get("engine_timed", 0), 10, "the report of it"
    )
    now = group(stack, model)
    assert now["engine_prefill_s"] > before.get("engine_prefill_s", 0)
    assert now["first_tokens"] > before.get("first_tokens", 0)
    if model != "depot-chat":  # llmapi models do not say how many tokens they gave
        assert now["itl_s"] > before.get("itl_s", 0)
