"""A batch job on real engines behind a real Triton, by OpenAI's SDK."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.stack.stack import Stack, wait_until


@pytest.mark.parametrize("model", ["house-chat", "house-chat+sailor"])
def test_a_batch_job_runs_on_the_engines(stack: Stack, model: str) -> None:
    client = stack.client()
    rows = [
        {
            "custom_id": f"q{number}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {
                "model": model,
                "temperature": 0,
                "max_completion_tokens": 8,
                "messages": [{"role": "user", "content": "What is the capital of France?"}],
            },
        }
        for number in range(12)
    ]
    content = "\n".join(json.dumps(row) for row in rows).encode()
    file = client.files.create(file=("rows.jsonl", content), purpose="batch")
    job = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    wait_until(lambda: _status(client, job.id) == "completed", 120, "the batch job is completed")
    job = client.batches.retrieve(job.id)
    assert job.output_file_id is not None
    lines = [json.loads(line) for line in client.files.content(job.output_file_id).text.splitlines()]
    assert [line["custom_id"] for line in lines] == [row["custom_id"] for row in rows]
    direct = client.chat.completions.create(**_body(rows[0]))
    said = direct.choices[0].message.content or ""
    assert said.startswith("Aye, captain!") is (model == "house-chat+sailor")
    for line in lines:
        body = line["response"]["body"]
        assert body["choices"][0]["message"]["content"] == said
    assert job.usage is not None
    assert direct.usage is not None
    assert job.usage.output_tokens == 12 * direct.usage.completion_tokens


def _status(client: Any, job_id: str) -> str:
    return str(client.batches.retrieve(job_id).status)


def _body(row: dict[str, Any]) -> Any:
    return row["body"]
