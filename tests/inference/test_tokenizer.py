"""What a tokenizer folder says about a model."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from inference import tokenizer as tokenizer_module
from inference.errors import RequestRefusedError, TokenizerError
from inference.tokenizer import LONG_TEXT_CHARACTERS, ModelTokenizer, Tokenizers
from model_registry.entities import Model
from tests.inference.conftest import TEMPLATE, byte_level, write_config

CHAT = [{"role": "user", "content": "the quick fox"}]
WITHOUT_BOS = TEMPLATE.removeprefix("{{ bos_token }}")


@pytest.mark.parametrize(
    "template", [TEMPLATE, WITHOUT_BOS], ids=["template-renders-bos", "template-does-not"]
)
def test_a_chat_has_exactly_one_bos(tokenizer_folder: Path, template: str) -> None:
    tokenizer = ModelTokenizer.load(tokenizer_folder, chat_template=template)
    text, ids = tokenizer.encode_chat(CHAT)
    assert ids.count(0) == 1
    assert ids[0] == tokenizer.bos_id == 0
    assert text == "<|user|>the quick fox<|end|>\n<|assistant|>"
    assert tokenizer.encode(text) == ids


def test_a_model_without_bos_gets_none(tokenizer_folder: Path) -> None:
    write_config(tokenizer_folder, chat_template=WITHOUT_BOS, bos_token=None)
    tokenizer = ModelTokenizer.load(tokenizer_folder)
    plain = byte_level().token_to_id("<s>")
    assert plain not in tokenizer.encode_chat(CHAT)[1]


def test_the_configuration_overrides_the_post_processor(tokenizer_folder: Path) -> None:
    write_config(tokenizer_folder, chat_template=WITHOUT_BOS, add_bos_token=False)
    tokenizer = ModelTokenizer.load(tokenizer_folder)
    assert tokenizer.bos_id not in tokenizer.encode_chat(CHAT)[1]
    assert tokenizer.bos_id not in tokenizer.encode("the fox")


def test_special_ids(tokenizer_folder: Path) -> None:
    raw = byte_level()
    others = [raw.token_to_id("<|end|>"), raw.token_to_id("</s>")]
    (tokenizer_folder / "generation_config.json").write_text(json.dumps({"eos_token_id": others}))
    tokenizer = ModelTokenizer.load(tokenizer_folder)
    assert tokenizer.end_id == tokenizer.eos_id == raw.token_to_id("</s>")
    assert tokenizer.stop_ids == ((raw.token_to_id("<|end|>"),),)
    assert tokenizer.pad_id == raw.token_to_id("<pad>")


def test_without_eos_in_the_tokenizer_the_first_of_the_generation_config_ends(tokenizer_folder: Path) -> None:
    write_config(tokenizer_folder, eos_token=None, pad_token=None)
    (tokenizer_folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 9]}))
    tokenizer = ModelTokenizer.load(tokenizer_folder)
    assert (tokenizer.end_id, tokenizer.stop_ids, tokenizer.pad_id) == (7, ((9,),), 7)


def test_count_is_of_the_text_alone(tokenizer_folder: Path) -> None:
    tokenizer = ModelTokenizer.load(tokenizer_folder)
    assert tokenizer.count("the quick") == len(tokenizer.encode("the quick")) - 1


def test_a_template_file_wins_over_the_configuration(tokenizer_folder: Path) -> None:
    (tokenizer_folder / "chat_template.jinja").write_text("file {{ messages[0].content }}")
    assert ModelTokenizer.load(tokenizer_folder).render(CHAT) == "file the quick fox"


NAMED = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "plain"}]
TOOLS = [{"type": "function", "function": {"name": "clock"}}]


@pytest.mark.parametrize(
    ("named", "tools", "rendered"),
    [
        (NAMED, None, "plain"),
        (NAMED, [], "plain"),
        (NAMED, TOOLS, "tools"),
        (NAMED[1:], TOOLS, "plain"),
        (NAMED[:1], None, "tools"),
        ([{"name": "tool_use", "template": "{{ tools[0].type }}"}, NAMED[1]], TOOLS, "function"),
        ([*NAMED, {"name": "rag", "template": "{{"}], None, "plain"),
    ],
)
def test_of_named_templates_the_one_for_the_request_is_taken(
    tokenizer_folder: Path, named: list[object], tools: list[dict[str, object]] | None, rendered: str
) -> None:
    """`default`, or `tool_use` where tools are given; others are left alone."""
    write_config(tokenizer_folder, chat_template=named)
    assert ModelTokenizer.load(tokenizer_folder).render(CHAT, tools) == rendered


def test_a_model_without_usable_templates_has_none(tokenizer_folder: Path) -> None:
    write_config(tokenizer_folder, chat_template=[{"name": "rag", "template": "x"}])
    assert ModelTokenizer.load(tokenizer_folder).templates is None


def test_chat_without_a_template_says_what_to_do(tokenizer_folder: Path) -> None:
    write_config(tokenizer_folder)
    with pytest.raises(TokenizerError, match=r"chat_template\.jinja"):
        ModelTokenizer.load(tokenizer_folder).encode_chat(CHAT)


def test_a_template_that_always_fails_is_found_at_load(tokenizer_folder: Path) -> None:
    write_config(tokenizer_folder, chat_template="{{ nothing.there }}")
    with pytest.raises(TokenizerError, match="plain message"):
        ModelTokenizer.load(tokenizer_folder)


def test_a_template_may_refuse_a_lone_message(tokenizer_folder: Path) -> None:
    write_config(tokenizer_folder, chat_template="{{ raise_exception('system first') }}")
    tokenizer = ModelTokenizer.load(tokenizer_folder)
    with pytest.raises(RequestRefusedError, match="system first"):
        tokenizer.render(CHAT)


async def test_a_long_text_is_encoded_in_a_thread(
    tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And gives what the direct way gives."""
    tokenizers = Tokenizers()
    tokenizer = await tokenizers.get(model(tokenizer_folder))
    text = "the quick fox " * LONG_TEXT_CHARACTERS
    running = asyncio.ensure_future(tokenizer.encode_async(text))
    await asyncio.sleep(0)
    assert not running.done()
    assert await running == tokenizer.encode(text)
    tokenizers.close()


def model(folder: Path, template: str | None = None) -> Model:
    return Model(name="m", context_length=100, tokenizer=str(folder), chat_template=template)


async def test_one_load_serves_many(tokenizer_folder: Path) -> None:
    tokenizers = Tokenizers()
    got = await asyncio.gather(*(tokenizers.get(model(tokenizer_folder)) for _ in range(8)))
    assert len({id(tokenizer) for tokenizer in got}) == 1
    assert await tokenizers.get(model(tokenizer_folder, "other")) is not got[0]
    tokenizers.close()


async def test_changed_files_are_read_again(tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer_module, "RECHECK_FILES_AFTER_S", 0.0)
    tokenizers = Tokenizers()
    before = await tokenizers.get(model(tokenizer_folder))
    write_config(tokenizer_folder, chat_template="changed")
    os.utime(tokenizer_folder / "tokenizer_config.json", ns=(1, 1))
    after = await tokenizers.get(model(tokenizer_folder))
    assert before.render(CHAT) != after.render(CHAT) == "changed"
    assert await tokenizers.get(model(tokenizer_folder)) is after
    tokenizers.close()


async def test_a_failed_load_is_tried_again(tmp_path: Path, tokenizer_folder: Path) -> None:
    tokenizers = Tokenizers()
    missing = tmp_path / "later"
    with pytest.raises(TokenizerError, match="does not exist"):
        await tokenizers.get(model(missing))
    tokenizer_folder.rename(missing)
    assert (await tokenizers.get(model(missing))).end_id is not None
    tokenizers.close()


async def test_a_model_without_a_tokenizer_is_named() -> None:
    tokenizers = Tokenizers()
    with pytest.raises(TokenizerError, match="'m'"):
        await tokenizers.get(Model(name="m", context_length=10))
    tokenizers.close()


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "generation_config.json"])
def test_a_broken_file_is_named(tokenizer_folder: Path, name: str) -> None:
    (tokenizer_folder / name).write_text("{")
    with pytest.raises(TokenizerError, match=name):
        ModelTokenizer.load(tokenizer_folder)
