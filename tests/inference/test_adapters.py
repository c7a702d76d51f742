"""Adapters from their folders: identity, changes, bounded memory; and what each lane makes of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from emulator.engine import ModelConfig
from inference.adapters import Adapters
from inference.classify import classify_error
from inference.errors import (
    AdapterError,
    AdapterMissingError,
    AdapterUnsendableError,
    ServerBusyError,
    UnsupportedFeatureError,
)
from inference.grpc_tensors import infer_bytes, infer_request
from inference.lanes import lane_of
from inference.lora import CONFIG_FILE, WEIGHTS_FILE, load_adapter
from inference.request import InferenceRequest, Lora, LoraWeights, RawTensor
from inference.schema import Schema, Tensor
from model_registry.entities import Adapter, LaneName
from tests.emulator.adapters import write_adapter

MODEL = ModelConfig.load(Path(__file__).parents[2] / "emulator" / "models" / "depot-chat")
WEIGHTS = LoraWeights(RawTensor((2, 4), bytes(16)), RawTensor((2, 3), bytes(24)))
LORA_INPUTS = {
    "lora_task_id": Tensor("UINT64", (-1, 1)),
    "lora_weights": Tensor("FP16", (-1, -1, -1)),
    "lora_config": Tensor("INT32", (-1, -1, 3)),
}


@pytest.fixture(autouse=True)
def always_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inference.adapters.RECHECK_FILES_AFTER_S", 0.0)


@pytest.fixture
async def adapters() -> AsyncIterator[Adapters]:
    made = Adapters(1 << 30)
    yield made
    made.close()


def adapter(folder: Path, seed: int, **fields: str) -> Adapter:
    return Adapter(name=folder.name, model="m", path=str(write_adapter(folder, MODEL, seed)), **fields)


async def test_the_id_stands_for_the_weights(adapters: Adapters, tmp_path: Path) -> None:
    """Wherever they lie and whatever they are called, also in another process and after a restart."""
    one, same, other = (adapter(tmp_path / name, seed) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    ids = [(await adapters.identify(item)).task_id for item in (one, same, other)]
    assert ids[0] == ids[1] != ids[2]
    assert all(0 <= task_id < 2**64 for task_id in ids)
    fresh = Adapters(0)
    assert (await fresh.identify(one)).task_id == ids[0]
    fresh.close()


async def test_the_tensors_are_those_of_the_folder(adapters: Adapters, tmp_path: Path) -> None:
    found = (await adapters.load(adapter(tmp_path / "a", 1))).weights
    expected = load_adapter(tmp_path / "a")
    assert found is not None
    weights = np.frombuffer(found.weights.data, np.float16).reshape(found.weights.shape)
    config = np.frombuffer(found.config.data, np.int32).reshape(found.config.shape)
    assert np.array_equal(weights, expected.weights)
    assert np.array_equal(config, expected.config)


async def test_changed_files_are_read_again(adapters: Adapters, tmp_path: Path) -> None:
    one = adapter(tmp_path / "a", 1)
    before = await adapters.load(one)
    write_adapter(tmp_path / "a", MODEL, 2)
    after = await adapters.identify(one)
    assert after.task_id != before.task_id
    assert (await adapters.load(one)).task_id == after.task_id


async def test_half_written_files_leave_the_adapter_as_it_was(adapters: Adapters, tmp_path: Path) -> None:
    one = adapter(tmp_path / "a", 1)
    before = await adapters.identify(one)
    whole = (tmp_path / "a" / WEIGHTS_FILE).read_bytes()
    (tmp_path / "a" / WEIGHTS_FILE).write_bytes(whole[:100])
    assert await adapters.identify(one) == before
    (tmp_path / "a" / CONFIG_FILE).unlink()
    assert await adapters.identify(one) == before


async def test_an_adapter_that_cannot_be_read_names_the_file(adapters: Adapters, tmp_path: Path) -> None:
    """And is looked at again by the next request."""
    one = Adapter(name="a", model="m", path=str(tmp_path / "a"))
    with pytest.raises(AdapterError, match=CONFIG_FILE):
        await adapters.identify(one)
    write_adapter(tmp_path / "a", MODEL, 1)
    assert (await adapters.identify(one)).task_id
    with pytest.raises(AdapterError, match="has no `path`"):
        await adapters.load(Adapter(name="b", model="m"))


async def test_many_that_ask_at_once_read_once(
    adapters: Adapters, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []

    def counted(folder: Path) -> object:
        read.append(folder)
        return load_adapter(folder)

    monkeypatch.setattr("inference.adapters.load_adapter", counted)
    one = adapter(tmp_path / "a", 1)
    found = await asyncio.gather(*(adapters.identify(one) for _ in range(9)))
    assert len(set(found)) == len(read) == 1


async def test_weights_are_kept_within_bytes_and_ids_beyond(tmp_path: Path) -> None:
    many = [adapter(tmp_path / str(seed), seed) for seed in range(4)]
    measure = Adapters(1 << 30)
    await measure.load(many[0])
    adapters = Adapters(2 * measure.held_bytes)
    loras = [await adapters.load(item) for item in many]
    assert adapters.held_bytes == 2 * measure.held_bytes
    assert [await adapters.load(item) for item in many] == loras
    adapters.retain(many[-1:])
    assert adapters.held_bytes == measure.held_bytes
    adapters.retain(())
    assert adapters.held_bytes == 0
    measure.close()
    adapters.close()


async def test_servers_that_know_adapters_are_told_name_and_folder(adapters: Adapters) -> None:
    plain = adapters.by_name(Adapter(name="a", model="m", path="/here"))
    assert (plain.name, plain.server_path) == ("a", "/here")
    named = Adapter(name="a", model="m", path="/here", server_path="/there", lora_name="A-1")
    assert (adapters.by_name(named).name, adapters.by_name(named).server_path) == ("A-1", "/there")
    pathless = Adapter(name="a", model="m", server_path="/there")
    assert await adapters.identify(pathless) == adapters.by_name(pathless)


# Lanes


def schema(lane: LaneName, inputs: dict[str, Tensor]) -> Schema:
    return Schema(lane, "t", inputs, decoupled=True, max_batch_size=4)


def request(lora: Lora) -> InferenceRequest:
    return InferenceRequest(
        id="r", model="m", stream=False, max_tokens=2, prompt_ids=[1, 2], prompt_text="hi", lora=lora
    )


@pytest.mark.parametrize("lane", ["tensorrt_llm", "ensemble", "tensorrt_llm_bls"])
def test_the_weights_go_along_only_where_they_are_wanted(lane: LaneName) -> None:
    spoken = lane_of(schema(lane, LORA_INPUTS))
    known = spoken.tensors(request(Lora(7, "a")))
    assert {name: value for name, value in known.items() if name in LORA_INPUTS} == {"lora_task_id": 7}
    sent = spoken.tensors(request(Lora(7, "a", weights=WEIGHTS)))
    assert (sent["lora_weights"], sent["lora_config"]) == WEIGHTS


def test_numbers_of_another_type_are_not_sent_as_if_they_were_those() -> None:
    spoken = lane_of(schema("tensorrt_llm", {**LORA_INPUTS, "lora_weights": Tensor("BF16", (-1, -1, -1))}))
    with pytest.raises(AdapterUnsendableError, match="as BF16"):
        spoken.check(request(Lora(7, "a")))


def test_raw_tensors_keep_their_bytes_and_get_the_batch_dimension() -> None:
    tensors = {"lora_task_id": 2**64 - 1, "lora_weights": WEIGHTS.weights, "lora_config": WEIGHTS.config}
    message = infer_request("t", "r", tensors, LORA_INPUTS)
    shapes = {tensor.name: (tensor.datatype, list(tensor.shape)) for tensor in message.inputs}
    assert shapes["lora_weights"] == ("FP16", [1, 2, 4])
    assert shapes["lora_config"] == ("INT32", [1, 2, 3])
    assert list(message.raw_input_contents)[1:] == [WEIGHTS.weights.data, WEIGHTS.config.data]


@pytest.mark.parametrize("length", [0, 1, 127, 128, 16_383, 16_384, 3_000_000])
def test_bytes_on_the_wire_are_those_of_protobuf(length: int) -> None:
    tensors = {"lora_task_id": 5, "lora_weights": RawTensor((1, length // 2), bytes(length))}
    wire = infer_bytes("t", "r", tensors, LORA_INPUTS)
    assert type(infer_request("t", "r", tensors, LORA_INPUTS)).FromString(wire) == infer_request(
        "t", "r", tensors, LORA_INPUTS
    )


def test_the_llm_api_is_told_where_the_adapter_is() -> None:
    names = {name: Tensor("BYTES", (1,)) for name in ("lora_id", "lora_name", "lora_path")}
    spoken = lane_of(schema("llmapi", names))
    tensors = spoken.tensors(request(Lora(7, "a", "/there")))
    assert (tensors["lora_id"], tensors["lora_name"], tensors["lora_path"]) == (7, "a", "/there")
    with pytest.raises(AdapterUnsendableError, match="server_path"):
        spoken.check(request(Lora(7, "a")))


@pytest.mark.parametrize("lane", ["tensorrt_llm", "ensemble", "tensorrt_llm_bls", "llmapi"])
def test_a_schema_without_adapters_is_named(lane: LaneName) -> None:
    with pytest.raises(UnsupportedFeatureError, match=f"the {lane} lane") as raised:
        lane_of(schema(lane, {})).check(request(Lora(7, "a", "/there")))
    assert raised.value.param == "model"


def test_what_engines_say_of_adapters_is_understood() -> None:
    missing = "LoRA task 11 not found in cache. Please send LoRA weights with request"
    for text in (
        f"Executor failed process requestId 4 due to the following error: {missing}",
        f"in ensemble 'ensemble', Executor failed process requestId 4: {missing}",
        f'Traceback (most recent call last):\n  File "model.py", line 3\nException: {missing}',
    ):
        assert isinstance(classify_error(400, text), AdapterMissingError)
    for full in (
        "PEFT Cache is full. Could not store taskId=2",
        "Cache is full. There are no done tasks to evict",
    ):
        assert isinstance(classify_error(500, full), ServerBusyError)
