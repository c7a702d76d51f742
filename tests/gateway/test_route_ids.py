"""The tokens by which an upstream's prompts are routed: those that it will make, or none; never a refusal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.config import GatewayConfig
from gateway.operations.chat import ChatCompletion
from gateway.operations.completion import TextCompletion
from gateway.prompts import ids_to_route_by
from inference.tokenizer import Tokenizers
from model_registry.entities import Model
from tests.emulator.triton.small_model import write_small_model

LIMITS = GatewayConfig().limits


@pytest.fixture
def tokenizers() -> Iterator[Tokenizers]:
    made = Tokenizers()
    yield made
    made.close()


def completion(prompt: Any) -> Any:
    return TextCompletion().parse(json.dumps({"model": "m", "prompt": prompt}).encode(), LIMITS)


async def test_they_are_those_of_the_models_tokenizer(tmp_path: Path, tokenizers: Tokenizers) -> None:
    model = Model(name="m", context_length=512, tokenizer=str(write_small_model(tmp_path)))
    tokenizer = await tokenizers.get(model)
    text = "the engine house"
    assert await ids_to_route_by(completion(text), model, tokenizers) == tokenizer.encode(text)
    assert await ids_to_route_by(completion([5, 6, 7]), model, tokenizers) == [5, 6, 7]
    chat = {"model": "m", "messages": [{"role": "user", "content": text}]}
    asked = ChatCompletion().parse(json.dumps(chat).encode(), LIMITS)
    rendered = f"<s>user: {text}\nassistant:"
    assert await ids_to_route_by(asked, model, tokenizers) == tokenizer.encode(rendered, False)


async def test_where_they_cannot_be_told_there_are_none(tmp_path: Path, tokenizers: Tokenizers) -> None:
    """Of several prompts, without a tokenizer, with one that is broken, or of ids that the model has not."""
    folder = write_small_model(tmp_path)
    model = Model(name="m", context_length=512, tokenizer=str(folder))
    assert await ids_to_route_by(completion(["one", "two"]), model, tokenizers) is None
    assert await ids_to_route_by(completion([100_000]), model, tokenizers) is None
    for tokenizer in (None, str(tmp_path / "nowhere")):
        other = Model(name="n", context_length=512, tokenizer=tokenizer)
        assert await ids_to_route_by(completion("one"), other, tokenizers) is None
