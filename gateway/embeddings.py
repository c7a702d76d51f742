"""`POST /v1/embeddings`: from a parsed body to vectors in OpenAI's shape."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Sequence
from functools import partial

from gateway.access import check_allowed, check_modality
from gateway.api.embedding_requests import EmbeddingRequest, embeddings_answer, parse_embeddings
from gateway.api.errors import bad_request
from gateway.assembling import RELAYED
from gateway.config import GatewayConfig
from gateway.entry import Arrived, Entry
from gateway.limits import estimated_tokens, reserve
from gateway.operations.embedding import Embedding
from gateway.shadow.watched import Watched
from gateway.streaming.whole_choice import WholeChoice
from inference.request import EmbeddingInput, InferenceRequest, Usage
from inference.tokenizer import ModelTokenizer, Tokenizers
from inference.vectors import FLOAT_BYTES, normalised
from model_registry.entities import Endpoint, Model
from router.attempts import Router
from router.job import Job
from router.profiles import resolve
from router.request_batches import EMBEDDING_LANES, RequestBatches
from tenancy.limits import TenantLimits
from tenancy.policy import Selection

_OPENAI_LANES = frozenset({"openai-http"})
_ID_LANES = EMBEDDING_LANES - {"text_encoder"}
_LARGE_FLOATS = 1 << 16
"""Longer answers are encoded in a thread: some 10 ms of work."""


class Embeddings:
    """Answers embedding requests; owned by one gateway process."""

    def __init__(
        self, config: GatewayConfig, tokenizers: Tokenizers, router: Router, limits: TenantLimits
    ) -> None:
        self._limits = limits
        self._config = config
        self._tokenizers = tokenizers
        self._router = router
        self._batches = RequestBatches(router)

    async def respond(self, entry: Entry, arrived: Arrived) -> None:
        """Respond, or raise what the client is to see."""
        api = parse_embeddings(arrived.body, self._config.limits)
        wish = entry.wish = resolve(
            arrived.snapshot, api.model, None, arrived.profile, arrived.identity.policy.profile_for
        )
        check_allowed(arrived.identity, wish)
        check_modality(wish.model, "embedding")
        if wish.adapter is not None:
            raise bad_request(
                f"Embeddings are made without adapters. Ask for {wish.model.name!r}.",
                "model",
                "unsupported_parameter",
            )
        endpoints = arrived.snapshot.endpoints.get(wish.model.name, ())
        lanes = _lanes(api, wish.model, endpoints)
        watched = None
        if (rolling := arrived.snapshot.rolling.get(wish.model.name)) is not None:
            watched = entry.watched = Watched(rolling, (), RELAYED, lanes)
        if lanes is _OPENAI_LANES:
            await reserve(self._limits, entry, arrived.identity, partial(estimated_tokens, api.raw))
            await self._relay(entry, api, arrived.identity.policy.selection)
            return
        api.refuse_unserved()
        _check_dimensions(api, wish.model, _width(wish.model, endpoints))
        tokenizer = await self._tokenizers.get(wish.model)
        inputs = await read_inputs(api, wish.model, tokenizer)
        tokens = sum(len(one.ids) for one in inputs)
        entry.usage = Usage(tokens, 0)
        await reserve(self._limits, entry, arrived.identity, lambda: tokens)
        entry.routed = True
        embedded = await self._batches.embed(
            wish,
            inputs,
            entry.trace,
            lanes,
            arrived.identity.policy.selection,
            entry.was_held,
            entry.due_s(self._config.request_timeout_s),
        )
        entry.finished = embedded.finished
        if watched is not None:
            watched.inputs, watched.vectors = inputs, embedded.vectors
        entry.response.respond(200, await _encoded(api, wish.model, embedded.vectors, tokens))

    async def _relay(self, entry: Entry, api: EmbeddingRequest, selection: Selection | None) -> None:
        """An upstream that speaks OpenAI gets the client's own body and joins requests as it likes."""
        wish = entry.wish
        assert wish is not None
        request = InferenceRequest(
            id=entry.request_id,
            model=wish.model.name,
            stream=False,
            max_tokens=0,
            path=Embedding.path,
            body=api.raw,
        )
        entry.routed = True
        choice = WholeChoice(0, None)
        entry.choices = [choice]
        job = Job(request, wish, sum(map(len, api.inputs)), entry.trace, _OPENAI_LANES, selection=selection)
        job.on_held = entry.was_held
        job.deadline_s = entry.due_s(self._config.request_timeout_s)
        entry.finished = [await self._router.run(job, choice)]
        entry.usage = entry.finished[0].usage
        entry.response.respond(200, choice.body or b"")


async def read_inputs(api: EmbeddingRequest, model: Model, tokenizer: ModelTokenizer) -> list[EmbeddingInput]:
    """The inputs by the model's ids. Raises ApiError 400 that names the input."""
    found: list[EmbeddingInput] = []
    texts = [one for one in api.inputs if isinstance(one, str)]
    for index, text in enumerate(texts):
        _refuse_hopeless(text, model, tokenizer, api.place(index))
    if texts:
        rows = await tokenizer.encode_many(texts)
        found = [EmbeddingInput(ids, text) for ids, text in zip(rows, texts, strict=True)]
    else:
        found = [EmbeddingInput(one) for one in api.inputs if not isinstance(one, str)]
    last = tokenizer.vocab_size - 1
    for index, one in enumerate(found):
        if len(one.ids) > model.context_length:
            raise _too_long(model, api.place(index), f"{len(one.ids)}")
        if one.text is None and max(one.ids) > last:
            place = api.place(index)
            raise bad_request(
                f"`{place}` holds the token id {max(one.ids)}; this model's ids end at {last}.", place
            )
    return found


def _refuse_hopeless(text: str, model: Model, tokenizer: ModelTokenizer, place: str) -> None:
    """Refuse a text that cannot fit, however it is tokenised, before that is done."""
    longest = tokenizer.longest_token
    if longest is not None and len(text) > longest * model.context_length:
        raise _too_long(model, place, f"at least {len(text) // longest}")


def _too_long(model: Model, place: str, tokens: str) -> Exception:
    return bad_request(
        f"This model's maximum context length is {model.context_length} tokens; `{place}` has {tokens}. "
        "Shorten it.",
        place,
        "context_length_exceeded",
    )


def _lanes(api: EmbeddingRequest, model: Model, endpoints: Sequence[Endpoint]) -> frozenset[str]:
    """The lanes that can serve this request: those of Triton where the model has any."""
    present = {endpoint.lane for endpoint in endpoints}
    if not present & EMBEDDING_LANES and (present or model.tokenizer is None):
        return _OPENAI_LANES
    if isinstance(api.inputs[0], str):
        return EMBEDDING_LANES
    if present and not present & _ID_LANES:
        raise bad_request(
            f"`input` as token ids is not supported by {model.name!r}, whose server takes text. Send text.",
            "input",
            "unsupported_parameter",
        )
    return _ID_LANES


def _width(model: Model, endpoints: Sequence[Endpoint]) -> int | None:
    """Length of the model's vectors, as far as it is known before an answer is."""
    if model.dimensions is not None:
        return model.dimensions
    told = (endpoint.server_schema.get("dimensions") for endpoint in endpoints)
    return next((width for width in told if isinstance(width, int)), None)


def _check_dimensions(api: EmbeddingRequest, model: Model, width: int | None) -> None:
    """Raise ApiError 400 for more dimensions than there are, or fewer of a model that cannot be shortened."""
    asked = api.dimensions
    if asked is None or asked == width:
        return
    if width is not None and asked > width:
        raise bad_request(
            f"`dimensions` is {asked}; this model's vectors have {width}. Ask for at most that.", "dimensions"
        )
    if not model.shortens:
        raise bad_request(
            f"The vectors of {model.name!r} cannot be shortened"
            f"{f' from {width}' if width is not None else ''}. Leave `dimensions` out.",
            "dimensions",
            "unsupported_parameter",
        )


async def _encoded(api: EmbeddingRequest, model: Model, vectors: list[bytes], tokens: int) -> bytes:
    """The answer's body; a long one does not hold up the event loop."""
    if api.dimensions is not None:
        _check_dimensions(api, model, len(vectors[0]) // FLOAT_BYTES)

    def encode() -> bytes:
        shown = vectors if api.dimensions is None else [shortened(one, api.dimensions) for one in vectors]
        return embeddings_answer(api.model, shown, tokens, api.base64)

    if sum(map(len, vectors)) <= _LARGE_FLOATS * FLOAT_BYTES:
        return encode()
    return await asyncio.to_thread(encode)


def shortened(vector: bytes, dimensions: int) -> bytes:
    """The first `dimensions` of a vector, with length 1 again; all of them as they are."""
    if len(vector) <= dimensions * FLOAT_BYTES:
        return vector
    return normalised(array("f", vector[: dimensions * FLOAT_BYTES])).tobytes()
