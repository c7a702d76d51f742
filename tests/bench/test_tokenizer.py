"""The benchmark's vocabulary: ids that read as times, prompts that survive a round trip."""

from __future__ import annotations

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


def test_the_question_survives(vocabulary: Tokenizer) -> None:
    ids = vocabulary.encode(bodies.QUESTION).ids
    assert vocabulary.decode(ids) == bodies.QUESTION
    assert max(ids) < tokenizer.ID_BASE
