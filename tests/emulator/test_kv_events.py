"""What the OpenAI emulator tells of its cache: TensorRT-LLM's shapes, and the truth."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from emulator.engine import EngineLimits
from emulator.engine.kv_events import KvEventBuffer
from emulator.openai_server import ServedModel, create_app
from inference.kv_events import Created, parsed
from tests.emulator.triton.small_model import write_small_model

BLOCK, BLOCKS = 16, 8
PROMPT = [5 + n for n in range(60)]


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[TestClient[Any, Any]]:
    limits = EngineLimits(
        max_seq_len=128,
        max_input_len=120,
        tokens_per_block=BLOCK,
        kv_blocks=BLOCKS,
        event_buffer_max_size=64,
    )
    model = ServedModel.load("m", write_small_model(tmp_path), limits)
    async with TestClient(TestServer(create_app([model]))) as client:
        yield client


async def ask(client: TestClient[Any, Any], prompt: list[int]) -> None:
    body = {"model": "m", "prompt": prompt, "max_tokens": 1, "temperature": 0}
    async with client.post("/v1/completions", json=body) as response:
        assert response.status == 200


async def events(client: TestClient[Any, Any]) -> list[dict[str, Any]]:
    async with client.post("/kv_cache_events") as response:
        body = await response.read()
        told: list[dict[str, Any]] = await response.json()
    assert len(parsed(body)) == len(told), "the gateway reads what is told"
    return told


async def test_blocks_are_told_with_their_tokens_and_parents_and_reading_takes_them(
    client: TestClient[Any, Any],
) -> None:
    await ask(client, PROMPT)
    created, stored = await events(client)
    assert created == {
        "event_id": 0,
        "data": {"type": "created", "num_blocks_per_cache_level": [BLOCKS, 0]},
        "window_size": 128,
    }
    assert (stored["event_id"], stored["data"]["parent_hash"]) == (1, None)
    blocks = stored["data"]["blocks"]
    assert [[token["token_id"] for token in block["tokens"]] for block in blocks] == [
        PROMPT[start : start + BLOCK] for start in (0, 16, 32)
    ]
    assert blocks[0].keys() == {"type", "block_hash", "tokens", "cache_level", "priority"}
    await ask(client, [*PROMPT, *range(100, 110)])
    (more,) = await events(client)
    assert more["data"]["parent_hash"] == blocks[-1]["block_hash"]
    assert more["event_id"] == 2


async def test_what_was_evicted_is_told_the_last_of_a_sequence_first(client: TestClient[Any, Any]) -> None:
    await ask(client, PROMPT)
    *_, stored = await events(client)
    names = [block["block_hash"] for block in stored["data"]["blocks"]]
    await ask(client, [200 + n for n in range(112)])
    removed = [
        one["data"]["block_hashes"] for one in await events(client) if one["data"]["type"] == "removed"
    ]
    assert removed == [[name] for name in reversed(names)][: len(removed)]
    assert removed


def test_a_full_buffer_drops_the_oldest_so_that_the_numbers_show_it() -> None:
    buffer = KvEventBuffer(2, 8, 128)
    buffer.stored(0, 1, [1])
    buffer.removed(1)
    assert [one["event_id"] for one in buffer.drain()] == [1, 2]
    assert buffer.drain() == []


def test_events_of_an_unknown_kind_are_said_to_be_no_events() -> None:
    (event,) = parsed(
        b'[{"event_id": 0, "window_size": 4, "attention_dp_rank": 3, "data": {"type": "created"}}]'
    )
    assert (event.attention_dp_rank, event.data) == (3, Created())
    for body in (b"{}", b"[{}]", b"\xff", b'[{"event_id": 0, "data": {"type": "melted"}}]'):
        with pytest.raises(Exception, match="not the KV events of trtllm-serve"):
            parsed(body)
