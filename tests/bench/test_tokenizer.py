"""The benchmark's vocabulary: ids that read as times, prompts that survive a round trip."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from bench import bodies, tokenizer


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder: Path = tokenizer.write(tmp_path_factory.mktemp("tokenizer"))
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def test_an_id_reads_as_its_time(vocabulary: Tokenizer) -> None:
    ids = [tokenizer.ID_BASE, tokenizer.ID_BASE + 42, tokenizer.ID_BASE + tokenizer.ID_COUNT - 1]
    assert vocabulary.decode(ids) == " t000000 t000042 t131071"
    assert vocabulary.get_vocab_size() == tokenizer.ID_BASE + tokenizer.ID_COUNT


@pytest.mark.parametrize("message", bodies.MESSAGES, ids=lambda message: message["role"])
def test_every_message_survives(vocabulary: Tokenizer, message: dict[str, str]) -> None:
    ids = vocabulary.encode(message["content"]).ids
    assert vocabulary.decode(ids) == message["content"]
    assert max(ids) < tokenizer.ID_BASE


def test_a_chat_is_about_a_kilobyte_in_its_third_turn() -> None:
    assert 900 < len(json.dumps(bodies.chat("house", stream=True, tokens=100))) < 1200
    assert [message["role"] for message in bodies.MESSAGES] == ["system", *["user", "assistant"] * 2, "user"]
    assert json.dumps(bodies.MESSAGES).count(bodies.NUMBER) == 1
