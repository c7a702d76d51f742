"""`POST /v1/embeddings`."""

from __future__ import annotations

from gateway.api.errors import encode_error


class Embedding:
    """OpenAI's embeddings; `gateway.embeddings` answers them."""

    name = "embeddings"
    path = "/v1/embeddings"
    id_header = "x-request-id"
    error = staticmethod(encode_error)
