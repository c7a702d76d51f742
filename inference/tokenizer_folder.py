"""TokenizerFolder: what the files beside a checkpoint say of tokens, special ids and chat templates.

One of `tokenizer.json`, `tekken.json` (Mistral) and `tokenizer.model` (SentencePiece) must be there, and is
taken in that order; `tokenizer_config.json`, `generation_config.json` and a chat template are read where
present.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from inference import sentencepiece_model, tekken
from inference.chat_template import ChatTemplate, RaisedByTemplateError
from inference.errors import RequestRefusedError, TokenizerError
from inference.rendering import Templates

FILES = (
    "tokenizer.json",
    tekken.FILE,
    sentencepiece_model.FILE,
    "tokenizer_config.json",
    "generation_config.json",
    "chat_template.jinja",
    "chat_template.json",
)
"""Everything that is looked at."""
_TRIAL: Sequence[Mapping[str, Any]] = ({"role": "user", "content": "Hello"},)
_TEMPLATE_NAMES = ("default", "tool_use")
_SPECIAL_NAMES = ("bos_token", "eos_token", "pad_token", "unk_token")


def read_tokenizer(folder: Path, config: Mapping[str, Any]) -> tuple[Tokenizer, dict[str, str]]:
    """The tokenizer, and its special tokens by name; what `config` says of those comes first."""
    tokenizer, named = _read_any(folder, config)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    stated = {name: text for name in _SPECIAL_NAMES if (text := _content(config.get(name)))}
    return tokenizer, {**named, **stated}


def _read_any(folder: Path, config: Mapping[str, Any]) -> tuple[Tokenizer, dict[str, str]]:
    if (file := folder / "tokenizer.json").is_file():
        return _read_own(file), {}
    if (file := folder / tekken.FILE).is_file():
        return tekken.read(file)
    if (file := folder / sentencepiece_model.FILE).is_file():
        return sentencepiece_model.read(file, legacy=config.get("legacy") is not False)
    raise TokenizerError(
        f"{folder / 'tokenizer.json'} does not exist: point the model's `tokenizer` at a folder with "
        f"tokenizer.json, {tekken.FILE} or {sentencepiece_model.FILE} "
        "(AutoTokenizer.from_pretrained(...).save_pretrained(folder) writes the first)"
    )


def _read_own(file: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the Rust library raises bare Exception
        raise TokenizerError(f"{file} is not a tokenizer that this version can read: {error}") from error


def read_json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TokenizerError(f"{file} cannot be read as JSON: {error}; repair or remove it") from error
    if not isinstance(value, dict):
        raise TokenizerError(f"{file} must hold a JSON object; repair or remove it")
    return value


def _content(token: Any) -> str | None:
    """Special tokens are written as text, or as an object with `content`."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None


def end_ids(tokenizer: Tokenizer, special: Mapping[str, str], generation: Mapping[str, Any]) -> list[int]:
    """The tokenizer's EOS first, then those of generation_config, each once."""
    named = special.get("eos_token")
    first = None if named is None else tokenizer.token_to_id(named)
    listed = generation.get("eos_token_id")
    others = listed if isinstance(listed, list) else [listed]
    return list(dict.fromkeys(end for end in [first, *others] if isinstance(end, int)))


def pad_id(tokenizer: Tokenizer, special: Mapping[str, str], ends: list[int]) -> int | None:
    named = special.get("pad_token")
    pad_id: int | None = None if named is None else tokenizer.token_to_id(named)
    if pad_id is None and ends:
        return ends[0]
    return pad_id


def adds_bos(tokenizer: Tokenizer, config: Mapping[str, Any], bos_id: int | None) -> bool:
    """What tokenizer_config.json says, else what the tokenizer's post-processor does."""
    if bos_id is None:
        return False
    if config.get("add_bos_token") is True:
        return True
    return bool(tokenizer.encode("", add_special_tokens=True).ids[:1] == [bos_id])


def read_template_sources(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """Templates by name, as the folder gives them; the one for plain chat is "default"."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return {"default": file.read_text(encoding="utf-8")}
    stated = read_json(folder / "chat_template.json").get("chat_template") or config.get("chat_template")
    if isinstance(stated, str):
        return {"default": stated}
    named = stated if isinstance(stated, list) else []
    return {entry["name"]: entry["template"] for entry in named if {"name", "template"} <= entry.keys()}


def templates(sources: Mapping[str, str], special: Mapping[str, str], folder: Path) -> Templates | None:
    """The templates that requests choose from. A folder with one for tools alone uses it for all."""
    named = {name: ChatTemplate(sources[name], special) for name in _TEMPLATE_NAMES if name in sources}
    if not named:
        return None
    default, tool_use = named.get("default"), named.get("tool_use")
    if default is None:
        return Templates(named["tool_use"])
    _try(default, folder)
    return Templates(default, tool_use)


def _try(template: ChatTemplate, folder: Path) -> None:
    """Render one plain message, so that a broken template fails at load and not at every request."""
    try:
        template.render(_TRIAL)
    except RequestRefusedError as error:
        if isinstance(error.__cause__, RaisedByTemplateError):
            return  # a template may insist on more than one message
        raise TokenizerError(f"the chat template of {folder} fails on a plain message: {error}") from error
