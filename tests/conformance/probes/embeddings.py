"""Probes of embeddings."""

from __future__ import annotations

import base64
import struct
from typing import Any

from tests.conformance.ask import QUESTION, Ask
from tests.conformance.probes.probe import probes

PROBES, probe = probes()


def vectors(ask: Ask, **fields: Any) -> list[Any]:
    answer = ask.post("/v1/embeddings", fields)
    assert [item["index"] for item in answer["data"]] == list(range(len(answer["data"])))
    return [item["embedding"] for item in answer["data"]]


def near(one: list[float], other: list[float]) -> bool:
    return len(one) == len(other) and all(abs(a - b) < 1e-3 for a, b in zip(one, other, strict=True))


@probe("embeddings", "text")
def embed_text(ask: Ask) -> None:
    (vector,) = vectors(ask, input="The engine runs.")
    (other,) = vectors(ask, input="A train is late.")
    assert len(vector) > 8
    assert not near(vector, other)


@probe("embeddings", "several texts, each as if alone")
def embed_several(ask: Ask) -> None:
    texts = ["The engine runs.", "A train is late, and nobody knows why.", "x"]
    together = vectors(ask, input=texts)
    assert all(
        near(vector, vectors(ask, input=text)[0]) for vector, text in zip(together, texts, strict=True)
    )


@probe("embeddings", "token ids")
def embed_ids(ask: Ask) -> None:
    assert ask.tokenizer is not None
    ids = ask.tokenizer.encode("The engine runs.")
    assert near(vectors(ask, input=ids)[0], vectors(ask, input="The engine runs.")[0])


@probe("embeddings", "encoding_format: base64")
def embed_base64(ask: Ask) -> None:
    (packed,) = vectors(ask, input="The engine runs.", encoding_format="base64")
    raw = base64.b64decode(packed)
    assert near(list(struct.unpack(f"<{len(raw) // 4}f", raw)), vectors(ask, input="The engine runs.")[0])


@probe("embeddings", "dimensions")
def embed_dimensions(ask: Ask) -> None:
    (vector,) = vectors(ask, input="The engine runs.", dimensions=8)
    assert len(vector) == 8
    assert abs(sum(value * value for value in vector) - 1) < 1e-3


@probe("embeddings", "usage is exact")
def embed_usage(ask: Ask) -> None:
    assert ask.tokenizer is not None
    usage = ask.post("/v1/embeddings", {"input": ["The engine runs.", "x"]})["usage"]
    assert usage["prompt_tokens"] == sum(
        len(ask.tokenizer.encode(text)) for text in ("The engine runs.", "x")
    )


@probe("embeddings", "chat refused")
def embed_chat(ask: Ask) -> None:
    reply = ask.client.post("/v1/chat/completions", json={"model": ask.model, "messages": QUESTION})
    assert reply.status_code == 400
    assert reply.json()["error"]["code"] == "unsupported_model"
