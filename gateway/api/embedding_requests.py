"""EmbeddingRequest: the body of `POST /v1/embeddings`, parsed once and checked.

Source: openai-openapi, `CreateEmbeddingRequest`.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import Annotated, Any, Literal, cast

import msgspec
from msgspec import Meta, Struct

from gateway.api.errors import bad_request
from gateway.api.fields import FITS, typed
from gateway.api.json_body import BodyLimits, decode_object
from gateway.api.unserved import refuse_unserved

MAX_INPUTS = 2048
"""OpenAI's limit."""


class EmbeddingBody(Struct, kw_only=True):
    """What OpenAI's body may hold."""

    model: Annotated[str, Meta(min_length=1, max_length=256)]
    input: str | list[str | int | list[int]]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    user: str | None = None


_INPUT = "a string, an array of strings, an array of token ids or an array of such arrays"
_FITS: Mapping[str, str] = {
    "model": FITS["model"],
    "input": _INPUT,
    "input[]": "a string, a token id or an array of token ids",
    "input[][]": "a token id: an integer of at least 0",
    "encoding_format": "float or base64",
    "dimensions": "an integer of at least 1",
    "user": FITS["user"],
}
_KEYS = frozenset(EmbeddingBody.__struct_fields__)


class EmbeddingRequest(Struct):
    """A request as the client meant it."""

    raw: dict[str, Any]
    """The client's JSON object, for the `openai-http` lane."""
    model: str
    """As the client wrote it: alias and profile suffix included."""
    inputs: list[str] | list[list[int]]
    single: bool
    """One string or one array of ids, not an array of inputs."""
    base64: bool
    dimensions: int | None
    unknown: tuple[str, ...]
    """Fields that OpenAI does not know."""

    def refuse_unserved(self) -> None:
        """Raise ApiError 400 for what a Triton lane would have to ignore."""
        if self.unknown:
            refuse_unserved((), self.unknown, sorted(_KEYS))

    def place(self, index: int) -> str:
        """The path of an input: `input[2]`, or `input` where there is but one."""
        return "input" if self.single else f"input[{index}]"


def parse_embeddings(body: bytes, limits: BodyLimits) -> EmbeddingRequest:
    """The body of `POST /v1/embeddings`. Raises ApiError 400 or 413, nothing else."""
    raw = decode_object(body, limits)
    asked = typed(raw, EmbeddingBody, fits=_FITS)
    inputs, single = _inputs(asked.input)
    request = EmbeddingRequest(
        raw=raw,
        model=asked.model,
        inputs=inputs,
        single=single,
        base64=asked.encoding_format == "base64",
        dimensions=asked.dimensions,
        unknown=() if raw.keys() <= _KEYS else tuple(key for key in raw if key not in _KEYS),
    )
    if len(inputs) > MAX_INPUTS:
        raise bad_request(
            f"`input` holds {len(inputs)} inputs; at most {MAX_INPUTS} are allowed in one request. "
            "Send several requests.",
            "input",
        )
    for index in range(len(inputs)):
        _check(inputs[index], request.place(index))
    return request


def _inputs(given: str | list[str | int | list[int]]) -> tuple[list[str] | list[list[int]], bool]:
    """The inputs, and whether it was a single one."""
    if isinstance(given, str):
        return [given], True
    kinds = set(map(type, given))
    if kinds == {str}:
        return cast("list[str]", given), False
    if kinds == {int}:
        return [cast("list[int]", given)], True
    if kinds == {list}:
        return cast("list[list[int]]", given), False
    raise bad_request(f"`input` must be {_INPUT}; it is empty or mixes them.", "input")


def _check(one: str | list[int], place: str) -> None:
    if isinstance(one, str):
        if not one:
            raise bad_request(f"`{place}` is an empty string. Give at least one character.", place)
    elif not one or min(one) < 0 or max(one) >= 2**31:
        raise bad_request(f"`{place}` must be an array of token ids from 0 to 2147483647.", place)


def embeddings_answer(model: str, vectors: list[bytes], tokens: int, as_base64: bool) -> bytes:
    """The body of the answer; every vector is encoded by itself, so that other threads run in between."""
    encoded = [_entry(index, vector, as_base64) for index, vector in enumerate(vectors)]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return b'{"object":"list","data":[%b],"model":%b,"usage":%b}' % (
        b",".join(encoded),
        msgspec.json.encode(model),
        msgspec.json.encode(usage),
    )


def _entry(index: int, vector: bytes, as_base64: bool) -> bytes:
    """msgspec writes bytes as base64, which is what OpenAI's clients decode: 32-bit floats, little-endian."""
    shown = vector if as_base64 else array("f", vector)
    head = b'{"object":"embedding","index":%d,"embedding":' % index
    return head + msgspec.json.encode(shown if isinstance(shown, bytes) else shown.tolist()) + b"}"
