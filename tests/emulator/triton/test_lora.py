"""LoRA in a real Triton: tensors over gRPC once, then the id alone, on every lane that has them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from emulator.engine import ModelConfig
from inference.lora import LoraTensors, load_adapter
from tests.emulator.adapters import write_adapter
from tests.emulator.triton.server import Server

LENGTH = 12
Arrays = dict[str, Any]


@pytest.fixture(scope="session")
def folders(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, config = tmp_path_factory.mktemp("adapters"), ModelConfig.load(model_dir)
    return [write_adapter(folder / str(seed), config, seed) for seed in range(3)]


@pytest.fixture(scope="session")
def adapters(folders: list[Path]) -> list[LoraTensors]:
    return [load_adapter(folder) for folder in folders]


def named(task_id: int) -> Arrays:
    return {"lora_task_id": np.array([[task_id]], np.uint64)}


def sent(task_id: int, adapter: LoraTensors) -> Arrays:
    """The adapter's tensors with the batch dimension."""
    tensors = {"lora_weights": adapter.weights[None], "lora_config": adapter.config[None]}
    return named(task_id) | tensors


def bare(lora: Arrays, model: str = "tensorrt_llm") -> Arrays:
    minimum = "min_length" if model == "old" else "min_tokens"
    return {
        "input_ids": np.array([[5, 6, 7, 8]], np.int32),
        "input_lengths": np.array([[4]], np.int32),
        "request_output_len": np.array([[LENGTH]], np.int32),
        "runtime_top_k": np.array([[1]], np.int32),
        "exclude_input_in_output": np.array([[True]]),
        minimum: np.array([[LENGTH]], np.int32),
        **lora,
    }


async def tokens(server: Server, lora: Arrays, model: str = "tensorrt_llm") -> list[int]:
    (response,) = await server.infer(model, bare(lora, model))
    ids: list[int] = response["output_ids"].reshape(-1).tolist()
    return ids


async def text(server: Server, model: str, lora: Arrays) -> bytes:
    asked = {
        "text_input": np.array([[b"the engine house"]], np.object_),
        "max_tokens": np.array([[LENGTH]], np.int32),
        "top_k": np.array([[1]], np.int32),
        "exclude_input_in_output": np.array([[True]]),
    }
    (response,) = await server.infer(model, {**asked, **lora})
    found: bytes = response["text_output"].reshape(-1)[0]
    return found


@pytest.mark.parametrize("model", ["tensorrt_llm", "old"])
async def test_two_adapters_and_the_base_in_one_batch_answer_differently(
    server: Server, adapters: list[LoraTensors], model: str
) -> None:
    """Sent once each; then a crowd that names them by id gets the same three answers."""
    loras: list[Arrays] = [{}, sent(1, adapters[0]), sent(2, adapters[1])]
    answers = [await tokens(server, lora, model) for lora in loras]
    assert len({tuple(answer) for answer in answers}) == 3
    crowd = [{}, named(1), named(2)] * 6
    assert await asyncio.gather(*(tokens(server, lora, model) for lora in crowd)) == answers * 6


async def test_an_evicted_adapter_must_be_sent_again(server: Server, adapters: list[LoraTensors]) -> None:
    """The cache has room for two; the error says what to do, and doing it works."""
    first = await tokens(server, sent(11, adapters[0]))
    await tokens(server, sent(12, adapters[1]))
    await tokens(server, sent(13, adapters[2]))
    missing = "LoRA task 11 not found in cache. Please send LoRA weights with request"
    with pytest.raises(InferenceServerException, match=missing) as raised:
        await tokens(server, named(11))
    assert str(raised.value.message()).startswith("Executor failed process requestId ")
    assert await tokens(server, sent(11, adapters[0])) == first
    assert await tokens(server, named(11)) == first


async def test_the_id_alone_is_enough_over_http(server: Server, adapters: list[LoraTensors]) -> None:
    expected = await tokens(server, sent(21, adapters[0]))
    body = {"input_ids": [5, 6, 7, 8], "input_lengths": 4, "request_output_len": LENGTH, "runtime_top_k": 1}
    asked = {**body, "exclude_input_in_output": True, "min_tokens": LENGTH, "lora_task_id": 21}
    _, answer = await server.generate("tensorrt_llm", asked)
    assert answer["output_ids"] == expected
    _, refused = await server.generate("tensorrt_llm", {**asked, "lora_task_id": 404})
    assert refused["error"].endswith(
        "LoRA task 404 not found in cache. Please send LoRA weights with request"
    )


@pytest.mark.parametrize("model", ["ensemble", "tensorrt_llm_bls", "old_ensemble", "old_bls"])
async def test_text_models_pass_adapters_on(server: Server, adapters: list[LoraTensors], model: str) -> None:
    base = await text(server, model, {})
    adapted = await text(server, model, sent(31, adapters[2]))
    assert adapted != base
    assert await text(server, model, named(31)) == adapted
    with pytest.raises(InferenceServerException, match="LoRA task 404 not found in cache"):
        await text(server, model, named(404))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lora_config": None}, "Request for LoRA inference must have both lora_weights and lora_keys"),
        ({"lora_task_id": None}, "lora_task_id must be set for LoRA inference"),
        ({"lora_config": np.full((1, 14, 3), 9, np.int32)}, "Expected layerId to be in the range"),
    ],
)
async def test_wrong_tensors_have_the_words_of_the_executor(
    server: Server, adapters: list[LoraTensors], change: Arrays, message: str
) -> None:
    lora = {name: value for name, value in (sent(41, adapters[0]) | change).items() if value is not None}
    with pytest.raises(InferenceServerException, match=f"Assertion failed: {message}"):
        await tokens(server, lora)


async def test_an_engine_without_lora_leaves_adapters_alone(
    server: Server, adapters: list[LoraTensors]
) -> None:
    assert await tokens(server, sent(1, adapters[0]), "whole") == await tokens(server, {}, "whole")


async def test_llmapi_reads_the_adapter_from_its_folder(server: Server, folders: list[Path]) -> None:
    body = {"text_input": "the engine house", "sampling_param_max_tokens": LENGTH}
    plain = await _llmapi(server, body)
    lora = {"lora_id": 1, "lora_name": "first", "lora_path": str(folders[0])}
    assert await _llmapi(server, {**body, **lora}) != plain
    assert await _llmapi(server, body) == plain


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        ({"lora_id": 1}, "must all be given for LoRA, got lora_id"),
        ({"lora_id": 9, "lora_name": "x", "lora_path": "/none"}, "/none/adapter_config.json cannot be read"),
        (
            {"lora_id": 9, "lora_name": "x", "lora_path": "/none", "lora_ckpt_source": "nemo"},
            "lora_ckpt_source must be hf",
        ),
    ],
)
async def test_llmapi_says_what_is_wrong_with_an_adapter(
    server: Server, lora: dict[str, object], message: str
) -> None:
    body = {"text_input": "the engine house", "sampling_param_max_tokens": 4}
    _, answer = await server.generate("llmapi", {**body, **lora})
    assert answer["error"].startswith("Error generating request: ")
    assert message in answer["error"]


async def _llmapi(server: Server, body: dict[str, Any]) -> str:
    _, answer = await server.stream("llmapi", body)
    found: str = answer[-1]["text_output"]
    return found
