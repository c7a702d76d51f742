"""`/v1/embeddings` of the OpenAI-HTTP emulator: hidden states of its models, in OpenAI's shape."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from typing import Any

from emulator.engine.encoder import Encoder
from emulator.engine.tokenizer import EngineTokenizer


class BadEmbeddingRequestError(Exception):
    """The request cannot be served as written; the text names the field."""


async def embeddings_answer(
    body: dict[str, Any], name: str, tokenizer: EngineTokenizer, encoder: Encoder
) -> dict[str, Any]:
    """The answer to one body; all inputs are computed together, in a thread."""
    inputs = [tokenizer.encode(one) if isinstance(one, str) else one for one in _inputs(body.get("input"))]
    vectors = await asyncio.to_thread(encoder.embed, inputs)
    as_base64 = body.get("encoding_format") == "base64"
    tokens = sum(map(len, inputs))
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": base64.b64encode(row.tobytes()).decode() if as_base64 else row.tolist(),
        }
        for index, row in enumerate(vectors)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": name, "usage": usage}


def _inputs(given: Any) -> Sequence[str | list[int]]:
    if isinstance(given, str) or (isinstance(given, list) and given and isinstance(given[0], int)):
        given = [given]
    if not isinstance(given, list) or not given or not all(given):
        raise BadEmbeddingRequestError(
            "input must be a text, a list of texts, or token ids, and not be empty"
        )
    return given
