"""`/v1/embeddings` against the whole stack: vectors, usage, limits, joining, and what is refused."""

from __future__ import annotations

import asyncio
import base64
import math
from array import array
from typing import Any

import httpx2
import openai
import pytest

from inference.tokenizer import ModelTokenizer
from tests.openai_schema import validate
from tests.stack.stack import ROOT, Stack
from tests.stack.test_answers import root_of, spans_of

MODEL = "house-vectors"
TEXTS = ["The engine runs.", "A train waits at the platform, and the driver reads.", "Steam"]


@pytest.fixture(scope="session")
def tokenizer() -> ModelTokenizer:
    return ModelTokenizer.load(ROOT / "emulator" / "models" / "house-chat")


def embed(http: httpx2.Client, given: Any, **fields: Any) -> httpx2.Response:
    return http.post("/v1/embeddings", json={"model": MODEL, "input": given, **fields})


def vectors(answer: httpx2.Response) -> list[list[float]]:
    assert answer.status_code == 200, answer.text
    return [entry["embedding"] for entry in answer.json()["data"]]


def test_the_openai_sdk_gets_vectors_in_order_and_exact_usage(
    stack: Stack, tokenizer: ModelTokenizer
) -> None:
    """The SDK asks for base64 by itself and decodes it."""
    answer = stack.client().embeddings.create(model=MODEL, input=TEXTS)
    assert [entry.index for entry in answer.data] == [0, 1, 2]
    assert answer.usage.prompt_tokens == sum(len(tokenizer.encode(text)) for text in TEXTS)
    assert answer.usage.total_tokens == answer.usage.prompt_tokens
    for text, entry in zip(TEXTS, answer.data, strict=True):
        alone = stack.client().embeddings.create(model=MODEL, input=text, encoding_format="float")
        assert alone.data[0].embedding == pytest.approx(entry.embedding, abs=1e-5)
        assert math.hypot(*entry.embedding) == pytest.approx(1, abs=1e-4)


def test_every_form_of_input_and_of_output_says_the_same(
    http: httpx2.Client, tokenizer: ModelTokenizer
) -> None:
    text = vectors(embed(http, TEXTS[0]))[0]
    ids = tokenizer.encode(TEXTS[0])
    for given in ([TEXTS[0]], ids, [ids]):
        assert vectors(embed(http, given))[0] == pytest.approx(text, abs=1e-5)
    packed = vectors(embed(http, TEXTS[0], encoding_format="base64"))[0]
    assert array("f", base64.b64decode(packed)).tolist() == pytest.approx(text, abs=1e-5)
    validate("CreateEmbeddingResponse", embed(http, TEXTS).json())


def test_fewer_dimensions_are_cut_and_of_length_one_again(http: httpx2.Client) -> None:
    whole = vectors(embed(http, TEXTS[0]))[0]
    short = vectors(embed(http, TEXTS[0], dimensions=16))[0]
    length = math.hypot(*whole[:16])
    assert short == pytest.approx([value / length for value in whole[:16]], abs=1e-5)
    assert vectors(embed(http, TEXTS[0], dimensions=len(whole)))[0] == pytest.approx(whole, abs=1e-5)


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"input": ""}, "input", "invalid_value"),
        ({"input": ["a", ""]}, "input[1]", "invalid_value"),
        ({"input": []}, "input", "invalid_value"),
        ({"input": ["a", 1]}, "input", "invalid_value"),
        ({"input": [[1], []]}, "input[1]", "invalid_value"),
        ({"input": [[1, -1]]}, "input[0]", "invalid_value"),
        ({"input": ["a", "b " * 600]}, "input[1]", "context_length_exceeded"),
        ({"input": [[7] * 513]}, "input[0]", "context_length_exceeded"),
        ({"input": [5, 999999]}, "input", "invalid_value"),
        ({"input": ["a"] * 2049}, "input", "invalid_value"),
        ({"input": "a", "dimensions": 4096}, "dimensions", "invalid_value"),
        ({"input": "a", "dimensions": 0}, "dimensions", "invalid_value"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format", "invalid_value"),
        ({"input": "a", "user": 7}, "user", "invalid_type"),
        ({"input": "a", "dimension": 8}, "dimension", "unknown_parameter"),
        ({}, "input", "missing_required_parameter"),
        ({"input": "a", "model": "house-chat"}, "model", "unsupported_model"),
        ({"input": "a", "model": "house-vector"}, "model", "model_not_found"),
    ],
)
def test_a_wrong_request_is_refused_by_name(
    http: httpx2.Client, body: dict[str, Any], param: str, code: str
) -> None:
    answer = http.post("/v1/embeddings", json={"model": MODEL, **body})
    validate("ErrorResponse", answer.json())
    error = answer.json()["error"]
    assert (error["param"], error["code"]) == (param, code)
    assert answer.status_code in (400, 404)


def test_an_embedding_model_does_not_chat(http: httpx2.Client) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}
    answer = http.post("/v1/chat/completions", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unsupported_model")
    assert "/v1/embeddings" in answer.json()["error"]["message"]


def test_keys_are_asked_for(stack: Stack) -> None:
    answer = httpx2.post(f"{stack.base_url}/embeddings", json={"model": MODEL, "input": "a"})
    assert answer.status_code == 401


def test_a_full_request_of_2048_inputs(http: httpx2.Client, tokenizer: ModelTokenizer) -> None:
    """Joined into request batches of the server's size, answered in order."""
    texts = [f"{number} wagons" for number in range(2048)]
    answer = embed(http, texts, encoding_format="base64")
    assert answer.status_code == 200
    data = answer.json()["data"]
    assert [entry["index"] for entry in data] == list(range(2048))
    assert answer.json()["usage"]["prompt_tokens"] == sum(len(tokenizer.encode(text)) for text in texts)
    for probe in (0, 1000, 2047):
        alone = embed(http, texts[probe], encoding_format="base64").json()["data"][0]["embedding"]
        joined = array("f", base64.b64decode(data[probe]["embedding"])).tolist()
        assert array("f", base64.b64decode(alone)).tolist() == pytest.approx(joined, abs=1e-5)


async def test_concurrent_requests_are_joined(stack: Stack) -> None:
    """Far fewer requests reach Triton than clients send, and everyone gets the vector of its own text."""

    async def count(session: httpx2.AsyncClient) -> int:
        total = 0
        for server in stack.ready["triton"]:
            for line in (await session.get(server["metrics"])).text.splitlines():
                if line.startswith('nv_inference_request_success{model="house-vectors"'):
                    total += int(line.rpartition(" ")[2])
        return total

    texts = [f"wagon {number} " + "and on " * (number % 7) for number in range(120)]
    async with stack.async_client() as client, httpx2.AsyncClient() as session:
        before = await count(session)
        answers = await asyncio.gather(*(client.embeddings.create(model=MODEL, input=text) for text in texts))
        sent = await count(session) - before
        assert sent < 60
        for probe in (0, 50, 119):
            alone = await client.embeddings.create(model=MODEL, input=texts[probe])
            assert alone.data[0].embedding == pytest.approx(answers[probe].data[0].embedding, abs=1e-5)


async def test_a_client_that_leaves_takes_nobody_with_it(stack: Stack) -> None:
    """Its inputs leave the queue; those that were joined with it are answered."""
    async with stack.async_client() as client:
        leaving = [
            asyncio.create_task(client.embeddings.create(model=MODEL, input=["going away"] * 500))
            for _ in range(4)
        ]
        staying = [
            asyncio.create_task(client.embeddings.create(model=MODEL, input=f"stays {number}"))
            for number in range(20)
        ]
        await asyncio.sleep(0)
        for task in leaving:
            task.cancel()
        answers = await asyncio.gather(*staying)
        assert all(len(answer.data[0].embedding) == 144 for answer in answers)
        gone = await asyncio.gather(*leaving, return_exceptions=True)
        assert all(isinstance(one, asyncio.CancelledError) for one in gone)


def test_traces_and_metrics(http: httpx2.Client, stack: Stack) -> None:
    """A span of its own operation with the attempt below it; tokens counted; nothing of the text."""
    answer = embed(http, "Tell nobody of the Zwiebelkuchen")
    root = root_of(stack, answer.headers["x-trace-id"])
    assert root["name"] == f"embeddings {MODEL}"
    assert root["attributes"]["enginehouse.lane"] == "encoder"
    assert root["attributes"]["gen_ai.usage.input_tokens"] == answer.json()["usage"]["prompt_tokens"]
    names = {span["name"] for span in spans_of(stack, answer.headers["x-trace-id"])}
    assert {"route", "attempt"} <= names
    page = http.get("/metrics").text
    assert f'enginehouse_requests_total{{model="{MODEL}"' in page
    assert "Zwiebelkuchen" not in stack.logs() + str(spans_of(stack, answer.headers["x-trace-id"]))


def test_a_tenant_needs_the_model(http: httpx2.Client, stack: Stack) -> None:
    manifest = """
apiVersion: enginehouse/v1
kind: Tenant
metadata: {name: chatters}
spec: {allowed_models: [house-chat]}
"""
    body = {"files": [{"name": "t.yaml", "text": manifest}]}
    assert http.post("/admin/v1/apply", json=body, headers=stack.admin_headers).status_code == 200
    made = http.post(
        "/admin/v1/keys", json={"name": "chatter", "tenant": "chatters"}, headers=stack.admin_headers
    )
    assert made.status_code < 300, made.text
    client = openai.OpenAI(base_url=stack.base_url, api_key=made.json()["key"], max_retries=0)
    with pytest.raises(openai.PermissionDeniedError) as denied:
        client.embeddings.create(model=MODEL, input="a")
    assert denied.value.code == "model_not_allowed"
