"""Scripted answers come out token by token as any other; limits, ends and cancelling still hold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from emulator.engine.script import Script
from emulator.engine.tokenizer import EngineTokenizer

from .conftest import Client, MakeClient

MODELS = Path(__file__).resolve().parents[3] / "emulator" / "models"
SAID = (11, 12, 13, 14)


@pytest.fixture
def client(make_client: MakeClient) -> Client:
    """Prompts that begin with 1 have a script."""
    return make_client(script=lambda prompt: SAID if prompt[0] == 1 else None)


def test_the_engine_says_what_is_written(client: Client) -> None:
    client.send("scripted", [1, 2], 8, end_id=14, return_log_probs=True)
    plain = client.ask([2, 2], 4)
    assert client.finish("scripted") == [list(SAID)]
    assert len(client.outputs["scripted"]) == len(SAID)
    assert client.last("scripted").finish_reason == "stop"
    assert plain != list(SAID)


def test_limits_and_stop_words_cut_a_script(client: Client) -> None:
    assert client.ask([1, 2], 3) == [11, 12, 13]
    assert client.ask([1, 2], 8, stop_words=((12,),)) == [11, 12]
    assert client.ask([1, 2], 6)[:4] == list(SAID)


def test_the_answer_whose_prompt_stands_last_is_given(tmp_path: Path) -> None:
    tokenizer = EngineTokenizer(MODELS / "house-chat")
    script = Script(tmp_path / "script.json", tokenizer)
    prompt = tokenizer.encode("<|user|>first question<|end|> and then the second one")
    assert script.answer(prompt) is None
    answers = [{"when": "first", "say": "One."}, {"when": "second", "say": "Two <tool_call>."}]
    (tmp_path / "script.json").write_text(json.dumps({"answers": answers}))
    said = script.answer(prompt)
    assert said is not None
    assert said[-1] == tokenizer.eos_id
    assert tokenizer.decode(said) == "Two <tool_call>."
    assert script.answer(tokenizer.encode("nothing of it")) is None
    (tmp_path / "script.json").write_text("{broken")
    assert script.answer(prompt) == said
    (tmp_path / "script.json").unlink()
    assert script.answer(prompt) is None
