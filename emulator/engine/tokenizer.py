"""Text to token ids and back for one model folder, with its chat template.

Reads `tokenizer.json` and `tokenizer_config.json` in the layout of Hugging Face. This is the only
module of the engine that needs `tokenizers` and `jinja2`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer


class EngineTokenizer:
    """Tokenizer and chat template of one model.

    The templates of the shipped models write the BOS token themselves: encode their result with
    `add_special_tokens=False`, or it is doubled.
    """

    def __init__(self, folder: str | Path) -> None:
        path = Path(folder)
        self._tokenizer: Tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
        settings = json.loads((path / "tokenizer_config.json").read_text(encoding="utf-8"))
        self.bos_token: str = settings["bos_token"]
        self.eos_token: str = settings["eos_token"]
        self.bos_id = self._id(self.bos_token)
        self.eos_id = self._id(self.eos_token)
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.globals["raise_exception"] = _refuse
        self._template = environment.from_string(settings["chat_template"])

    @property
    def vocab_size(self) -> int:
        return self._tokenizer.get_vocab_size()

    def _id(self, token: str) -> int:
        number = self._tokenizer.token_to_id(token)
        if number is None:
            raise ValueError(f"tokenizer.json does not know the token {token!r} of tokenizer_config.json")
        return int(number)

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Token ids of a text; with `add_special_tokens` the BOS token comes first."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids
        return ids

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        """Text of token ids; a character cut in the middle becomes U+FFFD."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens)
        return text

    def render_chat(self, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool = True) -> str:
        """The prompt text of a conversation, BOS included, up to where the assistant begins to write."""
        return self._template.render(
            messages=messages,
            add_generation_prompt=add_generation_prompt,
            bos_token=self.bos_token,
            eos_token=self.eos_token,
        )


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)
