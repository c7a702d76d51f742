"""Encoders and vLLM embedding models against a real Triton: recognised, called, cancelled, refused."""

from __future__ import annotations

import asyncio
import math
from array import array
from collections.abc import AsyncIterator

import pytest

from emulator.engine import Weights
from emulator.engine.encoder import Encoder
from inference.client import ModelClients
from inference.encoder_http import infer_body
from inference.errors import InferenceError, PromptTooLongError, RequestRefusedError, UnsupportedFeatureError
from inference.introspection import introspect
from inference.push_http import Timeouts
from inference.request import EmbeddingInput, InferenceRequest
from inference.schema import Schema, Tensor
from inference.tokenizer import ModelTokenizer
from inference.vectors import mean_pooled, normalised
from model_registry.entities import Endpoint, ServerRef
from tests.inference.conftest import CHAT_MODEL
from tests.inference.recording import RecordingSink

WAIT_S = 20.0
TEXTS = ["How do I store a box?", "東京タワー", "The depot is open by day and by night."]
TARGETS = {
    "vectors": "encoder",
    "token_vectors": "encoder",
    "text_vectors": "text_encoder",
    "vllm_vectors": "vllm",
}


@pytest.fixture(scope="session")
def tokenizer() -> ModelTokenizer:
    return ModelTokenizer.load(CHAT_MODEL)


@pytest.fixture(scope="session")
def expected(tokenizer: ModelTokenizer) -> list[list[float]]:
    """Every text's vector, computed here and alone."""
    encoder = Encoder(Weights.load(CHAT_MODEL))
    return [encoder.embed([tokenizer.encode(text)])[0].tolist() for text in TEXTS]


@pytest.fixture
def inputs(tokenizer: ModelTokenizer) -> list[EmbeddingInput]:
    return [EmbeddingInput(tokenizer.encode(text), text) for text in TEXTS]


@pytest.fixture
async def clients() -> AsyncIterator[ModelClients]:
    clients = ModelClients(Timeouts())
    yield clients
    await clients.close()


async def endpoint_of(server: ServerRef, target: str) -> Endpoint:
    schema = await introspect(server, target)
    return Endpoint(
        name=target,
        deployment="d",
        model="m",
        profile="balanced",
        lane=schema.lane,
        target=schema.target,
        http=server.http,
        server_schema=schema.as_dict(),
    )


async def embed(
    clients: ModelClients, server: ServerRef, target: str, inputs: list[EmbeddingInput]
) -> RecordingSink:
    sink = RecordingSink()
    request = InferenceRequest(id="e", model="m", stream=False, max_tokens=0, inputs=inputs)
    clients.of(await endpoint_of(server, target)).start(request, sink)
    async with asyncio.timeout(WAIT_S):
        await sink.over.wait()
    return sink


@pytest.mark.parametrize(("target", "lane"), TARGETS.items())
async def test_it_is_recognised_by_its_tensors(triton: ServerRef, target: str, lane: str) -> None:
    schema = await introspect(triton, target)
    assert (schema.lane, schema.target) == (lane, target)
    assert Schema.from_dict(schema.as_dict()) == schema
    if lane != "vllm":
        assert schema.dimensions == len(Encoder(Weights.load(CHAT_MODEL)).embed([[1]])[0])
    assert schema.most_inputs == {"vectors": 64, "token_vectors": 4, "text_vectors": 64}.get(target)


@pytest.mark.parametrize("target", TARGETS)
async def test_every_lane_gives_the_same_vectors(
    clients: ModelClients,
    triton: ServerRef,
    target: str,
    inputs: list[EmbeddingInput],
    expected: list[list[float]],
) -> None:
    """Together and padded, as each alone; with the exact count of tokens."""
    sink = await embed(clients, triton, target, inputs)
    assert sink.error is None
    assert sink.heads == 1
    for vector, wanted in zip(sink.embeddings, expected, strict=True):
        assert array("f", vector).tolist() == pytest.approx(wanted, abs=1e-5)
    assert sink.usage is not None
    assert sink.usage.prompt_tokens == sum(len(one.ids) for one in inputs)


@pytest.mark.parametrize("target", ["vectors", "token_vectors", "vllm_vectors"])
async def test_what_the_server_refuses_is_the_requests_fault(
    clients: ModelClients, triton: ServerRef, target: str, inputs: list[EmbeddingInput]
) -> None:
    too_long = EmbeddingInput([5] * 513)
    sink = await embed(clients, triton, target, [*inputs, too_long])
    assert isinstance(sink.error, PromptTooLongError)
    assert sink.embeddings == []
    unknown = await embed(clients, triton, target, [EmbeddingInput([5, 99_999])])
    assert isinstance(unknown.error, RequestRefusedError)


@pytest.mark.parametrize("target", ["vectors", "token_vectors", "vllm_vectors"])
async def test_a_cancelled_call_says_nothing_more(
    clients: ModelClients, triton: ServerRef, target: str, inputs: list[EmbeddingInput]
) -> None:
    """And the next one on the same connections is answered."""
    sink = RecordingSink()
    request = InferenceRequest(id="e", model="m", stream=False, max_tokens=0, inputs=inputs)
    call = clients.of(await endpoint_of(triton, target)).start(request, sink)
    call.cancel()
    call.cancel()
    assert (await embed(clients, triton, target, inputs)).error is None
    assert (sink.ends, sink.embeddings) == (0, [])


@pytest.mark.parametrize("target", ["vectors", "text_vectors"])
async def test_an_encoder_generates_nothing(clients: ModelClients, triton: ServerRef, target: str) -> None:
    request = InferenceRequest(id="e", model="m", stream=False, max_tokens=4, prompt_text="Hello")
    with pytest.raises(UnsupportedFeatureError):
        clients.of(await endpoint_of(triton, target)).start(request, RecordingSink())


async def test_a_vllm_model_that_generates_embeds_nothing(
    clients: ModelClients, triton: ServerRef, inputs: list[EmbeddingInput]
) -> None:
    sink = await embed(clients, triton, "pages", inputs)
    assert isinstance(sink.error, InferenceError)
    assert "does not support 'embed'" in str(sink.error)


def schema(lane: str, inputs: dict[str, tuple[int, ...]], batch: int = 0) -> Schema:
    types = {"text": "BYTES"}
    return Schema(
        lane=lane,  # type: ignore[arg-type]
        target="m",
        inputs={name: Tensor(types.get(name, "INT32"), shape) for name, shape in inputs.items()},
        max_batch_size=batch,
        vectors="v",
    )


def test_inputs_are_padded_to_the_longest_under_the_mask() -> None:
    header, contents = infer_body(
        schema("encoder", {"input_ids": (-1, -1), "attention_mask": (-1, -1)}, batch=8),
        "id",
        [EmbeddingInput([1, 2, 3]), EmbeddingInput([4])],
    )
    values = array("i", contents).tolist()
    assert values == [1, 2, 3, 4, 0, 0, 1, 1, 1, 1, 0, 0]
    assert b'"shape":[2,3]' in header


def test_a_model_without_a_batch_takes_one_input() -> None:
    single = schema("encoder", {"input_ids": (-1,)})
    assert single.most_inputs == 1
    header, _ = infer_body(single, "id", [EmbeddingInput([1, 2])])
    assert b'"shape":[2]' in header
    explicit = schema("encoder", {"input_ids": (-1, -1)})
    assert (explicit.most_inputs, explicit.has_batch) == (None, True)
    assert schema("text_encoder", {"text": (-1,)}).most_inputs is None


def test_padding_has_no_part_in_the_mean() -> None:
    states = array("f", [3, 0, 0, 4, 100, 100, 1, 0, 100, 100, 100, 100])
    first, second = mean_pooled(states.tobytes(), [2, 3, 2], [2, 1])
    assert array("f", first).tolist() == pytest.approx([0.6, 0.8])
    assert array("f", second).tolist() == [1, 0]
    assert math.hypot(*normalised(array("f", [3, 4]))) == pytest.approx(1)
    assert normalised(array("f", [0, 0])).tolist() == [0, 0]
