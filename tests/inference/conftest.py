"""Tokenizers trained on the spot, and one real Triton with a model of every lane."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from emulator.engine import EngineLimits
from emulator.triton.repository import (
    EncoderModels,
    EngineSpec,
    LlmApiModels,
    TextModels,
    TrtEngineModels,
    VllmModels,
    build_emulator_repository,
)
from enginehouse.local.triton import TritonProcess
from enginehouse.local.triton_environment import ensure_environment
from inference.tokenizer import ModelTokenizer
from model_registry.entities import ServerRef
from tests.inference.speaking import Speaker

TEXTS = [
    "The quick brown fox jumps over the lazy dog. " * 3,
    "Größe, Maß, naïve café, 東京タワー, Привет мир, مرحبا, emoji 👩‍👩‍👧 🎉🎉",
    "def f(x):\n    return x ** 2  # \tcomment\n",
]
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_CONFIG = {"bos_token": "<s>", "eos_token": {"content": "</s>"}, "pad_token": "<pad>"}
_SPECIAL = ["<s>", "</s>", "<pad>", "<|end|>"]


def byte_level() -> Tokenizer:
    """As Llama 3, Qwen and GPT: BPE over bytes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=_SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.add_tokens([AddedToken("<tool>"), AddedToken(" 工具 ")])
    return _with_bos(tokenizer)


def byte_fallback(strip: bool = True) -> Tokenizer:
    """As Llama 2 and Mistral (`strip`) or Gemma: BPE over characters, unknown ones as byte tokens."""
    vocabulary = {token: index for index, token in enumerate(_SPECIAL)}
    for byte in range(256):
        vocabulary[f"<0x{byte:02X}>"] = len(vocabulary)
    for character in ["▁", *"abcdefghijklmnopqrstuvwxyz.,é東"]:
        vocabulary[character] = len(vocabulary)
    merges = [("▁", "t"), ("h", "e"), ("▁t", "he")]
    for left, right in merges:
        vocabulary[left + right] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first" if strip else "never")
    steps: list[Any] = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if strip else steps)
    tokenizer.add_special_tokens(_SPECIAL)
    return _with_bos(tokenizer)


def metaspace() -> Tokenizer:
    """A decoder that no table covers."""
    tokenizer = Tokenizer(models.BPE(unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=_SPECIAL)
    tokenizer.train_from_iterator(TEXTS, trainer)
    return _with_bos(tokenizer)


def _with_bos(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    return tokenizer


TOKENIZERS: dict[str, Callable[[], Tokenizer]] = {
    "byte-level": byte_level,
    "byte-fallback": byte_fallback,
    "byte-fallback-no-strip": lambda: byte_fallback(strip=False),
    "metaspace": metaspace,
}


@pytest.fixture(scope="session", params=list(TOKENIZERS))
def any_tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    """One tokenizer of every kind of decoder."""
    return TOKENIZERS[request.param]()


@pytest.fixture
def tokenizer_folder(tmp_path: Path) -> Path:
    """A Hugging Face tokenizer folder whose chat template renders BOS itself."""
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    byte_level().save(str(folder / "tokenizer.json"))
    write_config(folder, chat_template=TEMPLATE)
    return folder


def write_config(folder: Path, **entries: Any) -> None:
    """Replace tokenizer_config.json."""
    (folder / "tokenizer_config.json").write_text(json.dumps({**_CONFIG, **entries}), encoding="utf-8")


CHAT_MODEL = Path(__file__).parents[2] / "emulator" / "models" / "depot-chat"
_LIMITS = EngineLimits(max_batch_size=8, max_num_tokens=512, max_seq_len=512, max_input_len=480, kv_blocks=64)


@pytest.fixture(scope="session")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerRef]:
    """A real Triton for all tests, on a loop of its own."""
    with asyncio.Runner() as runner:
        process = runner.run(started(tmp_path_factory.mktemp("triton")))
        yield ServerRef(http=process.http_url, grpc=process.grpc_url, metrics=process.metrics_url)
        runner.run(process.stop())


@pytest.fixture(scope="session")
def chat_tokenizer() -> ModelTokenizer:
    """That of the Triton's models."""
    return ModelTokenizer.load(CHAT_MODEL)


@pytest.fixture
async def speaker(triton: ServerRef, chat_tokenizer: ModelTokenizer) -> AsyncIterator[Speaker]:
    """To that Triton."""
    speaker = Speaker(triton, chat_tokenizer)
    yield speaker
    await speaker.close()


async def started(folder: Path) -> TritonProcess:
    """A model of every lane, named so that nothing can be learnt from the name."""
    engine = EngineSpec(CHAT_MODEL, _LIMITS, cancellation_check_period_ms=20)
    guiding = replace(engine, guided_decoding=True)
    newer = TextModels("text", "before", "after", bls="script", bls_instances=1)
    older = TextModels(
        "old_text",
        "old_before",
        "old_after",
        bls="old_script",
        bls_instances=1,
        accumulate_tokens=True,
        add_special_tokens=False,
    )
    names = build_emulator_repository(
        folder / "repository",
        [
            TrtEngineModels(guiding, name="ids", text=newer),
            TrtEngineModels(guiding, name="old_ids", dialect="0.19", text=older),
            LlmApiModels(engine, name="words"),
            LlmApiModels(engine, name="old_words", dialect="1.x"),
            VllmModels(engine, name="pages"),
            VllmModels(engine, name="vllm_vectors", task="embed"),
            EncoderModels(CHAT_MODEL, name="vectors"),
            EncoderModels(CHAT_MODEL, name="token_vectors", kind="tokens", id_type="INT32", max_batch_size=4),
            EncoderModels(CHAT_MODEL, name="text_vectors", kind="text"),
            TrtEngineModels(engine, name="fragile"),
        ],
    )
    process = TritonProcess(
        "triton", await ensure_environment(), folder / "repository", folder / "log", load=names
    )
    await process.start()
    try:
        await process.ready()
    except BaseException:
        await process.stop()
        raise
    return process
