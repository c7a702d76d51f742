"""LoRA adapters on their way to a real Triton: sent once, remembered, sent again when it lost them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import pytest

from emulator.engine import ModelConfig
from enginehouse.local.triton import TritonProcess
from inference.errors import AdapterUnsendableError, UnsupportedFeatureError
from model_registry.entities import Adapter, ServerRef
from tests.emulator.adapters import write_adapter
from tests.router.adapter_house import (
    CHAT_MODEL,
    SENT_LANES,
    Collected,
    House,
    folders,
    house,
    process,
    runner,
)

__all__ = ["folders", "house", "process", "runner"]


@pytest.mark.parametrize("transport", ["http", "grpc"])
@pytest.mark.parametrize("target", SENT_LANES)
async def test_weights_are_sent_with_the_first_request_only(
    house: House, target: str, transport: str
) -> None:
    """Answers differ from the base's and from each other's, streamed and not, on every lane that has them."""
    await house.serve(target, transport=transport)
    base = await house.ask(None)
    first = [await house.ask(adapter) for adapter in house.adapters]
    again = [await house.ask(adapter, stream=False) for adapter in house.adapters]
    assert first == again
    assert len({str(answer) for answer in (base, *first)}) == len(first) + 1
    assert await house.ask(None) == base
    assert len(house.clients.sent) == len(set(house.clients.sent)) == len(house.adapters)
    assert set(house.observed.outcomes) == {"ok"}


async def test_an_evicted_adapter_is_sent_again_unseen_by_the_client(house: House) -> None:
    """More adapters than the cache holds, in turn: each is evicted before it is asked for again."""
    await house.serve("few")
    alone = [await house.ask(adapter) for adapter in house.adapters]
    house.clients.sent.clear()
    house.observed.outcomes.clear()
    assert [await house.ask(adapter) for adapter in house.adapters] == alone
    assert len(house.clients.sent) == len(house.adapters)
    assert house.observed.outcomes == ["adapter_missing", "ok"] * len(house.adapters)
    house.observed.outcomes.clear()
    assert await house.ask(house.adapters[-1]) == alone[-1]
    assert house.observed.outcomes == ["ok"]


async def test_of_many_first_requests_one_brings_the_weights(house: House) -> None:
    await house.serve("ids")
    answers = await asyncio.gather(*(house.ask(house.adapters[0]) for _ in range(24)))
    assert len({str(answer) for answer in answers}) == 1
    assert len(house.clients.sent) == 1


async def test_of_many_requests_for_an_evicted_adapter_one_brings_the_weights(house: House) -> None:
    await house.serve("few")
    first, *_ = [await house.ask(adapter) for adapter in house.adapters]
    house.clients.sent.clear()
    answers = await asyncio.gather(*(house.ask(house.adapters[0]) for _ in range(24)))
    assert answers == [first] * 24
    assert len(house.clients.sent) == 1


async def test_a_sender_that_leaves_hands_its_turn_on(house: House) -> None:
    """Cancelled before the engine took the weights; who waited for them brings them itself."""
    await house.serve("ids")
    sender = asyncio.create_task(house.ask(house.adapters[0]))
    await house.clients.sending.wait()
    waiting = [asyncio.create_task(house.ask(house.adapters[0])) for _ in range(4)]
    await asyncio.sleep(0)
    sender.cancel()
    answers = await asyncio.gather(*waiting)
    assert len({str(answer) for answer in answers}) == 1
    assert len(house.clients.sent) == 2


async def test_two_gateways_need_not_agree(process: TritonProcess, folders: list[Path]) -> None:
    """Each sends once; what one has evicted the other sends again."""
    server = ServerRef(http=process.http_url, grpc=process.grpc_url)
    houses = House(server, folders), House(server, folders)
    for one in houses:
        await one.serve("few")
    try:
        rounds = [
            [str(await one.ask(adapter)) for one in houses for adapter in one.adapters] for _ in range(2)
        ]
        assert rounds[0] == rounds[1]
        assert len(set(rounds[0])) == len(folders)
    finally:
        for one in houses:
            await one.close()


async def test_what_becomes_unhealthy_is_sent_the_weights_anew(house: House) -> None:
    """It may come back as another process with an empty cache."""
    endpoint = await house.serve("ids")
    lora = await house.store.identify(house.adapters[0])
    await house.ask(house.adapters[0])
    assert house.router.placement.holds(endpoint.name, lora.task_id)
    house.register(endpoint.model_copy(update={"state": "unhealthy"}))
    assert not house.router.placement.holds(endpoint.name, lora.task_id)
    house.register(endpoint)
    await house.ask(house.adapters[0])
    assert len(house.clients.sent) == 2


async def test_among_equal_endpoints_the_one_with_the_adapter_serves(house: House) -> None:
    first = await house.serve("ids")
    others = [first.model_copy(update={"name": f"other{n}"}) for n in range(5)]
    await house.ask(house.adapters[0])
    house.register(first, *others)
    for _ in range(8):
        finished = await house.run(house.adapters[0], Collected())
        assert finished.endpoint.name == first.name
    assert len(house.clients.sent) == 1


async def test_changed_weights_are_another_adapter(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inference.adapters.RECHECK_FILES_AFTER_S", 0.0)
    config = ModelConfig.load(CHAT_MODEL)
    adapter = Adapter(name="changing", model="m", path=str(write_adapter(tmp_path, config, 70)))
    house.adapters.append(adapter)
    await house.serve("ids")
    before = await house.ask(adapter)
    write_adapter(tmp_path, config, 71)
    after = await house.ask(adapter)
    assert after != before
    assert len(set(house.clients.sent)) == 2
    write_adapter(tmp_path, config, 70)
    assert await house.ask(adapter) == before
    assert len(house.clients.sent) == 2  # the engine still has the first ones, under the same id


async def test_the_llm_api_reads_the_adapter_itself(house: House) -> None:
    await house.serve("words")
    base = await house.ask(None)
    first = await house.ask(house.adapters[0])
    assert first != base
    assert first == await house.ask(house.adapters[0])
    assert house.clients.sent == []


async def test_without_a_grpc_address_the_operator_is_told_what_to_do(house: House) -> None:
    await house.serve("ids", grpc=None)
    with pytest.raises(AdapterUnsendableError, match=r"add `grpc: host:port` to the servers of deployment"):
        await house.ask(house.adapters[0])


async def test_another_endpoint_with_a_grpc_address_serves_instead(house: House) -> None:
    whole = await house.serve("ids")
    house.register(whole.model_copy(update={"name": "a", "grpc": None}), whole)
    house.router.ledger.of(whole.name).prefill_tokens = 10**6
    finished = await house.run(house.adapters[0], Collected())
    assert finished.endpoint.name == whole.name


async def test_a_schema_without_the_tensors_is_named(house: House) -> None:
    endpoint = await house.serve("ids")
    schema = dict(endpoint.server_schema)
    schema["inputs"] = {name: kind for name, kind in schema["inputs"].items() if name != "lora_weights"}
    house.register(endpoint.model_copy(update={"server_schema": schema}))
    with pytest.raises(UnsupportedFeatureError, match="tensorrt_llm lane") as raised:
        await house.ask(house.adapters[0])
    assert raised.value.param == "model"


async def test_triton_takes_no_fp16_as_json(house: House, process: TritonProcess) -> None:
    """Why the weights go by gRPC whatever the endpoint's transport."""
    lora = await house.store.load(house.adapters[0])
    assert lora.weights is not None
    body = {"input_ids": [5, 6], "input_lengths": 2, "request_output_len": 2, "lora_task_id": lora.task_id}
    body["lora_config"] = list(memoryview(lora.weights.config.data).cast("i"))
    body["lora_weights"] = [0.5] * (len(lora.weights.weights.data) // 2)
    url = f"{process.http_url}/v2/models/ids/generate_stream"
    async with aiohttp.ClientSession() as session, session.post(url, json=body) as response:
        assert response.status == 400
        assert "FP16" in await response.text()


async def test_ids_of_64_bits_pass_as_json(house: House, process: TritonProcess) -> None:
    body = {"input_ids": [5, 6], "input_lengths": 2, "request_output_len": 2, "lora_task_id": 2**64 - 7}
    url = f"{process.http_url}/v2/models/ids/generate_stream"
    async with aiohttp.ClientSession() as session, session.post(url, json=body) as response:
        assert f"LoRA task {2**64 - 7} not found in cache" in await response.text()
