"""`up` where no Triton can run: the same engines behind a small OpenAI-HTTP server, same gateway."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.stack.apis import (
    answers_end_for_the_same_reasons,
    messages_say_what_chat_says,
    responses_say_what_chat_says,
)
from tests.stack.stack import Stack


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack.start(tmp_path_factory.mktemp("stack"), "--fallback") as running:
        yield running
        assert running.stop() == 0


def test_the_same_models_answer_without_triton(stack: Stack) -> None:
    """Streamed and not, by the openai-http lane; usage is passed on."""
    assert stack.ready["triton"] == []
    client = stack.client()
    listed = [one.model_dump() for one in client.models.list()]
    assert {one["id"] for one in listed} >= set(stack.ready["models"])
    embedding = {one["id"] for one in listed if one["modality"] == "embedding"}
    for model in embedding:
        (vector,) = client.embeddings.create(model=model, input="steam").data
        assert len(vector.embedding) > 1
    for model in set(stack.ready["models"]) - embedding:
        question = [{"role": "user", "content": "What is the capital of France?"}]
        whole = client.chat.completions.create(model=model, messages=question, temperature=0)  # type: ignore[arg-type]
        assert "Paris" in (whole.choices[0].message.content or "")
        stream = client.chat.completions.create(
            model=model,
            messages=question,  # type: ignore[arg-type]
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = list(stream)
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        assert text == whole.choices[0].message.content
        assert chunks[-1].usage is not None
        assert whole.usage is not None
        assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_the_other_apis_answer_without_triton(stack: Stack) -> None:
    """The upstream speaks chat completions; its answers are read, and told in each API's own words."""
    for model in stack.ready["models"][:2]:
        responses_say_what_chat_says(stack, model)
        messages_say_what_chat_says(stack, model)
        answers_end_for_the_same_reasons(stack, model)
