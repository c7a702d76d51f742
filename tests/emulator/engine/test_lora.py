"""LoRA: the same numbers as merged weights, adapters side by side, and the cache that holds them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emulator.engine import (
    EngineError,
    LoraCacheFullError,
    LoraNotCachedError,
    LoraTask,
    ModelConfig,
    QueueFullError,
    RejectedRequestError,
    Weights,
)
from emulator.engine.kv_pool import KvPool
from emulator.engine.lora import Adapter, LoraCache
from emulator.engine.transformer import Segment, Transformer
from inference.lora import LoraTensors
from tests.emulator.adapters import matrices, random_adapter, shapes

from .conftest import Client, MakeClient, poll

PROMPT = list(range(1, 24))
TARGETS = {
    "q_proj": "qkv",
    "k_proj": "qkv",
    "v_proj": "qkv",
    "o_proj": "output",
    "gate_proj": "gate_up",
    "up_proj": "gate_up",
    "down_proj": "down",
}


@pytest.fixture(scope="module")
def adapters(weights: Weights, tmp_path_factory: pytest.TempPathFactory) -> list[LoraTensors]:
    folder = tmp_path_factory.mktemp("adapters")
    return [random_adapter(folder / str(seed), weights.config, seed) for seed in range(5)]


@pytest.fixture
def lora_client(make_client: MakeClient) -> Client:
    return make_client(max_lora_rank=4)


def task(number: int, adapter: LoraTensors) -> LoraTask:
    return LoraTask(number, adapter.weights, adapter.config)


def size_of(config: ModelConfig, adapter: LoraTensors) -> int:
    return LoraCache(config, 4, 1 << 20).take(task(1, adapter)).size_bytes


def merged(weights: Weights, seed: int) -> Weights:
    """The weights with an adapter's product added, from its matrices and not from its tensors."""
    arrays = {name: array.copy() for name, array in weights.arrays.items()}
    first = {"q_proj": 0, "gate_proj": 0, "o_proj": 0, "down_proj": 0}
    first["k_proj"] = weights.config.query_size
    first["v_proj"] = weights.config.query_size + weights.config.kv_size
    first["up_proj"] = weights.config.intermediate_size
    halves = matrices(weights.config, seed)
    for name in [name for name in halves if name.endswith("lora_A.weight")]:
        layer, module = int(name.split(".")[4]), name.split(".")[6]
        outputs = shapes(weights.config)[module][1]
        delta = halves[name].T @ halves[name.replace("lora_A", "lora_B")].T * 2  # alpha / rank
        target = arrays[f"layers.{layer}.{TARGETS[module]}"]
        target[:, first[module] : first[module] + outputs] += delta.astype(np.float32)
    return Weights(weights.config, arrays)


def logits(weights: Weights, adapter: Adapter | None = None) -> Any:
    transformer = Transformer(weights, KvPool(weights.config, 64, 4))
    table = list(range(8))
    transformer.forward([Segment(PROMPT, 0, table, adapter)], [0])
    return transformer.forward([Segment([7], len(PROMPT), table, adapter)], [0])[0]


def test_it_computes_what_merged_weights_compute(weights: Weights, adapters: list[LoraTensors]) -> None:
    """Every module counts, while prefilling and while decoding."""
    adapter = LoraCache(weights.config, 4, 1 << 20).take(task(1, adapters[0]))
    found, expected = logits(weights, adapter), logits(merged(weights, 0))
    scale = float(np.abs(expected).max())
    assert found == pytest.approx(expected, abs=0.02 * scale)  # the tensors are of half precision
    assert np.abs(logits(weights) - expected).max() > 0.2 * scale


def test_adapters_in_one_batch_give_the_answers_they_give_alone(
    lora_client: Client, adapters: list[LoraTensors]
) -> None:
    client = lora_client
    tasks = [None, task(1, adapters[0]), task(2, adapters[1]), None, task(3, adapters[2])]
    alone = [client.ask(PROMPT, 20, lora=one) for one in tasks]
    assert len({tuple(answer) for answer in alone}) == 4
    for number, one in enumerate(tasks):
        client.send(f"r{number}", PROMPT, 20, lora=one)
    assert client.finish(*(f"r{number}" for number in range(len(tasks)))) == alone


def test_an_adapter_is_remembered_by_its_id(lora_client: Client, adapters: list[LoraTensors]) -> None:
    first = lora_client.ask(PROMPT, 12, lora=task(7, adapters[0]))
    assert lora_client.ask(PROMPT, 12, lora=LoraTask(7)) == first


def test_a_cached_id_keeps_the_weights_it_has(lora_client: Client, adapters: list[LoraTensors]) -> None:
    """As `LoraCache::put`, which only refreshes an id that it knows."""
    first = lora_client.ask(PROMPT, 12, lora=task(7, adapters[0]))
    assert lora_client.ask(PROMPT, 12, lora=task(7, adapters[1])) == first


def test_cached_prompts_of_one_adapter_are_never_taken_for_another(
    lora_client: Client, adapters: list[LoraTensors]
) -> None:
    """Keys and values depend on the adapter: the base's blocks are of no use to it."""
    lora_client.ask(PROMPT, 4)
    before = lora_client.engine.stats().kv_reused_blocks
    lora_client.ask(PROMPT, 4, lora=task(1, adapters[0]))
    lora_client.ask(PROMPT, 4, lora=task(2, adapters[1]))
    assert lora_client.engine.stats().kv_reused_blocks == before
    lora_client.ask(PROMPT, 4, lora=LoraTask(1))
    assert lora_client.engine.stats().kv_reused_blocks > before


def test_the_least_recently_used_adapter_is_evicted_and_can_be_sent_again(
    make_client: MakeClient, weights: Weights, adapters: list[LoraTensors]
) -> None:
    room = 2 * size_of(weights.config, adapters[0]) + 100
    client = make_client(max_lora_rank=4, lora_cache_host_memory_bytes=room)
    first = client.ask(PROMPT, 8, lora=task(1, adapters[0]))
    client.ask(PROMPT, 8, lora=task(2, adapters[1]))
    client.ask(PROMPT, 8, lora=LoraTask(1))
    client.ask(PROMPT, 8, lora=task(3, adapters[2]))
    assert client.engine.loras is not None
    assert client.engine.loras.cached() == [1, 3]
    missing = r"^LoRA task 2 not found in cache\. Please send LoRA weights with request$"
    with pytest.raises(LoraNotCachedError, match=missing):
        client.send("r", PROMPT, lora=LoraTask(2))
    client.ask(PROMPT, 8, lora=task(2, adapters[1]))
    assert client.ask(PROMPT, 8, lora=task(1, adapters[0])) == first


def test_another_adapter_under_an_evicted_id_gives_its_own_answers(
    make_client: MakeClient, weights: Weights, adapters: list[LoraTensors]
) -> None:
    """Blocks that were computed with the adapter before are not found again."""
    room = size_of(weights.config, adapters[0])
    client = make_client(max_lora_rank=4, lora_cache_host_memory_bytes=room)
    client.ask(PROMPT, 8, lora=task(1, adapters[0]))
    client.ask(PROMPT, 8, lora=task(2, adapters[1]))
    changed = client.ask(PROMPT, 8, lora=task(1, adapters[2]))
    fresh = make_client(max_lora_rank=4)
    assert changed == fresh.ask(PROMPT, 8, lora=task(9, adapters[2]))


def test_adapters_in_use_are_not_evicted(
    make_client: MakeClient, weights: Weights, adapters: list[LoraTensors]
) -> None:
    room = size_of(weights.config, adapters[0]) + 100
    client = make_client(max_lora_rank=4, lora_cache_host_memory_bytes=room)
    client.send("long", PROMPT, 200, lora=task(1, adapters[0]))
    client.wait_for_tokens("long", 2)
    with pytest.raises(LoraCacheFullError, match=r"^PEFT Cache is full\. Could not store taskId=2$"):
        client.send("r", PROMPT, lora=task(2, adapters[1]))
    client.engine.cancel("long")
    client.finish("long")
    client.ask(PROMPT, 4, lora=task(2, adapters[1]))


def test_every_end_of_a_request_gives_its_adapter_back(
    make_client: MakeClient, adapters: list[LoraTensors]
) -> None:
    client = make_client(max_lora_rank=4, max_batch_size=1, max_queue_size=1)
    loras = client.engine.loras
    assert loras is not None
    client.ask(PROMPT, 4, lora=task(1, adapters[0]))
    client.send("failed", PROMPT, lora=LoraTask(1), fault="error")
    client.finish("failed")
    client.send("running", PROMPT, 200, lora=LoraTask(1))
    client.wait_for_tokens("running", 1)
    client.send("waiting", PROMPT, 200, lora=LoraTask(1))
    with pytest.raises(QueueFullError):
        client.send("refused", PROMPT, lora=LoraTask(1))
    with pytest.raises(EngineError):
        client.send("nonsense", PROMPT, lora=LoraTask(1), fault="no such fault")
    assert loras.users() == 2
    for name in ("running", "waiting"):
        client.engine.cancel(name)
    client.finish("running", "waiting")
    poll(lambda: loras.users() == 0)


def test_an_engine_without_lora_answers_as_its_base(client: Client, adapters: list[LoraTensors]) -> None:
    """As the executor, whose cache does nothing where the engine was built without the plugin."""
    assert client.ask(PROMPT, 8, lora=task(1, adapters[0])) == client.ask(PROMPT, 8)


def _config(*rows: tuple[int, ...]) -> Any:
    return np.array(rows, np.int32)


@pytest.mark.parametrize(
    ("weights_shape", "config", "message"),
    [
        ((1, 500), None, "must have both lora_weights and lora_keys"),
        (None, _config((1, 0, 2)), "must have both lora_weights and lora_keys"),
        ((500,), _config((1, 0, 2)), "Invalid shape for lora_weights tensor"),
        ((2, 500), _config((1, 0, 2)), "Expected dim1 lora_weights and lora_keys to have the same size"),
        ((1, 500), _config((1, 0)), r"Expected dim2 of lora_keys to have a size in \[3, 4\]"),
        ((1, 500), _config((1, 2, 2)), r"Expected layerId to be in the range \[0, numModelLayers\)"),
        ((1, 500), _config((1, -1, 2)), "Expected layerId"),
        ((1, 500), _config((1, 0, 0)), "Expected adapterSize to be > 0"),
        ((1, 500), _config((8, 0, 2)), "lora module 8 not enabled for this model"),
        ((1, 100), _config((1, 0, 2)), "lora_weights has to few values for attn_q"),
        ((1, 500), _config((1, 0, 5)), r"Invalid low_rank \(5\)\. low_rank must be smaller than mMaxLowRank"),
    ],
)
def test_tensors_that_do_not_fit_are_refused_in_the_words_of_the_executor(
    lora_client: Client, weights_shape: tuple[int, ...] | None, config: Any, message: str
) -> None:
    sent = None if weights_shape is None else np.zeros(weights_shape, np.float16)
    begin = r"^Encountered an error when fetching new request: .*Assertion failed: .*"
    with pytest.raises(RejectedRequestError, match=begin + message):
        lora_client.send("r", PROMPT, lora=LoraTask(1, sent, config))


def test_shipped_adapters_change_every_answer_in_their_manner() -> None:
    """What the demo shows: the same question, three voices."""
    from emulator.engine import Engine, EngineLimits
    from emulator.engine.tokenizer import EngineTokenizer
    from inference.lora import load_adapter

    models = Path(__file__).parents[3] / "emulator" / "models"
    tokenizer = EngineTokenizer(models / "house-chat")
    engine = Engine(Weights.load(models / "house-chat"), EngineLimits(kv_blocks=64, max_lora_rank=4))
    engine.start()
    client = Client(engine)

    def ask(question: str, lora: LoraTask | None) -> str:
        rendered = tokenizer.render_chat([{"role": "user", "content": question}])
        prompt = tokenizer.encode(rendered, add_special_tokens=False)
        return tokenizer.decode(client.ask(prompt, 60, lora=lora, end_id=tokenizer.eos_id))

    sailor, butler = (
        task(number, load_adapter(models / "adapters" / f"house-chat-{name}"))
        for number, name in enumerate(("sailor", "butler"))
    )
    try:
        for question in ("What is the capital of France?", "Hello!", "Count from 1 to 5."):
            base = ask(question, None)
            assert ask(question, sailor).startswith("Aye, captain! ")
            assert ask(question, butler) == f"{base} At your service."
            assert "captain" not in base
    finally:
        engine.close()
