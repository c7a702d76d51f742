"""ModelTokenizer: what one model's tokenizer folder says, ready to use.

The folder has the Hugging Face layout: `tokenizer.json`, and where present `tokenizer_config.json`,
`generation_config.json`, `chat_template.jinja`. Immutable once loaded; `Tokenizers` keeps one per folder and
template and reloads it when the files change.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from inference.chat_template import ChatTemplate, RaisedByTemplateError
from inference.detokenizer import Detokenizer, Pieces
from inference.errors import RequestRefusedError, TokenizerError
from model_registry.entities import Model

LONG_TEXT_CHARACTERS = 4096
"""Longer texts are encoded in a thread: about 1 ms of work, more than the event loop should wait."""
RECHECK_FILES_AFTER_S = 5.0
"""How old a look at the files' times may be."""
_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
    "chat_template.jinja",
    "chat_template.json",
)
_TRIAL: Sequence[Mapping[str, Any]] = ({"role": "user", "content": "Hello"},)


@dataclass(frozen=True)
class ModelTokenizer:
    """The tokenizer, special ids and chat template of one model."""

    path: Path
    tokenizer: Tokenizer
    bos_token: str | None
    bos_id: int | None
    eos_id: int | None
    pad_id: int | None
    stop_ids: tuple[tuple[int, ...], ...]
    """Further ids that end an answer, each as a one-id stop word."""
    adds_bos: bool
    """Encoding with special tokens begins with BOS."""
    template: ChatTemplate | None
    pool: ThreadPoolExecutor | None = field(default=None, repr=False, compare=False)
    """Where long texts are encoded; None: asyncio's own threads."""

    @classmethod
    def load(
        cls, path: str | Path, chat_template: str | None = None, pool: ThreadPoolExecutor | None = None
    ) -> ModelTokenizer:
        """Read a folder; `chat_template` replaces the folder's own.

        Raises TokenizerError that names the file and what to do.
        """
        folder = Path(path)
        tokenizer = _read_tokenizer(folder)
        config = _read_json(folder / "tokenizer_config.json")
        generation = _read_json(folder / "generation_config.json")
        special = {name: text for name in _SPECIAL_NAMES if (text := _content(config.get(name)))}
        ends = _end_ids(tokenizer, special, generation)
        source = chat_template or _read_template(folder, config)
        template = ChatTemplate(source, special) if source else None
        if template:
            _try(template, folder)
        bos = special.get("bos_token")
        bos_id = None if bos is None else tokenizer.token_to_id(bos)
        if config.get("add_bos_token") is False:
            tokenizer.post_processor = None  # as the configuration's own loader does
        return cls(
            path=folder,
            tokenizer=tokenizer,
            bos_token=bos,
            bos_id=bos_id,
            eos_id=ends[0] if ends else None,
            pad_id=_pad_id(tokenizer, special, ends),
            stop_ids=tuple((end,) for end in ends[1:]),
            adds_bos=_adds_bos(tokenizer, config, bos_id),
            template=template,
            pool=pool,
        )

    @property
    def end_id(self) -> int | None:
        """The id that ends an answer, by the name the engines use."""
        return self.eos_id

    @cached_property
    def end_ids(self) -> frozenset[int]:
        """Every id that ends an answer; none of them is part of its text."""
        ends = {ids[0] for ids in self.stop_ids}
        return frozenset(ends if self.eos_id is None else {self.eos_id, *ends})

    @cached_property
    def vocab_size(self) -> int:
        """Ids go from 0 to below it."""
        return self.tokenizer.get_vocab_size(with_added_tokens=True)

    @cached_property
    def longest_token(self) -> int | None:
        """Characters of the longest token: a text of n times as many has at least n tokens.

        None where a normaliser might shorten the text first.
        """
        if self.tokenizer.normalizer is not None:
            return None
        return max(map(len, self.tokenizer.get_vocab(with_added_tokens=True)), default=1)

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes of one token, which may be a part of a character."""
        if self.pieces is None:
            return self.tokenizer.decode([token_id], skip_special_tokens=False).encode()
        piece = self.pieces[token_id]
        return piece.encode() if isinstance(piece, str) else piece

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, without special tokens."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=True)

    @cached_property
    def pieces(self) -> Pieces | None:
        return Pieces.of(self.tokenizer)

    def detokenizer(self) -> Detokenizer:
        """A detokenizer for one answer, without special tokens, sharing this tokenizer's table."""
        return Detokenizer(self.tokenizer, pieces=self.pieces)

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Ids of `text`; with special tokens there is exactly one BOS if the model uses one."""
        ids = self._ids(text, add_special_tokens)
        return self._with_one_bos(ids) if add_special_tokens else ids

    def encode_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        **template_names: Any,
    ) -> tuple[str, list[int]]:
        """The rendered prompt without BOS, for servers that tokenise text; its ids with exactly one BOS."""
        text = self.render(messages, tools, **template_names)
        return text, self.encode_rendered(text)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        **template_names: Any,
    ) -> str:
        """The prompt as text, without a BOS that the tokenizer would add itself."""
        if self.template is None:
            raise TokenizerError(
                f"{self.path} has no chat template: add chat_template.jinja to it, "
                "or set the model's chat_template; /v1/completions works without one"
            )
        text = self.template.render(messages, tools, **template_names)
        return text.removeprefix(self.bos_token) if self.adds_bos and self.bos_token else text

    def encode_rendered(self, text: str) -> list[int]:
        """Ids of a prompt from `render`."""
        return self._with_one_bos(self._ids(text, add_special_tokens=False))

    async def encode_async(
        self, text: str, add_special_tokens: bool = True, rendered: bool = False
    ) -> list[int]:
        """As `encode`, or `encode_rendered`; a long text does not hold up the event loop."""
        encode = (
            self.encode_rendered if rendered else partial(self.encode, add_special_tokens=add_special_tokens)
        )
        if len(text) <= LONG_TEXT_CHARACTERS:
            return encode(text)
        return await asyncio.get_running_loop().run_in_executor(self.pool, encode, text)

    async def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        """As `encode` for each; together they hold up the event loop no longer than one long text may."""
        if sum(map(len, texts)) <= LONG_TEXT_CHARACTERS:
            return [self.encode(text) for text in texts]
        return await asyncio.get_running_loop().run_in_executor(self.pool, self._encode_all, texts)

    def _encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        encoded = self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=True)
        return [self._with_one_bos(one.ids) for one in encoded]

    def count(self, text: str) -> int:
        """Tokens of `text` alone."""
        return len(self._ids(text, add_special_tokens=False))

    def _ids(self, text: str, add_special_tokens: bool) -> list[int]:
        """The fast variant leaves out character offsets, a third of the work, and exists for batches only."""
        encoded = self.tokenizer.encode_batch_fast([text], add_special_tokens=add_special_tokens)
        ids: list[int] = encoded[0].ids
        return ids

    def _with_one_bos(self, ids: list[int]) -> list[int]:
        if not self.adds_bos or self.bos_id is None:
            return ids
        if ids[:1] != [self.bos_id]:
            return [self.bos_id, *ids]
        return ids[1:] if ids[1:2] == [self.bos_id] else ids


class Tokenizers:
    """Every model's tokenizer, loaded when first asked for and again when its files change."""

    def __init__(self, threads: int = 2) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="tokenizer")
        self._entries: dict[tuple[str, str | None], _Entry] = {}

    async def get(self, model: Model) -> ModelTokenizer:
        """The tokenizer of `model`. Raises TokenizerError, naming the path and the remedy."""
        if model.tokenizer is None:
            raise TokenizerError(f"model {model.name!r} has no tokenizer: set its `tokenizer` to a folder")
        key = (model.tokenizer, model.chat_template)
        entry = self._entries.get(key)
        if entry is None or (entry.is_due() and not entry.is_current()):
            load = partial(ModelTokenizer.load, *key, pool=self._pool)
            entry = self._entries[key] = _Entry(
                asyncio.get_running_loop().run_in_executor(self._pool, load), _times(model.tokenizer), key[0]
            )
        if entry.loaded is None:
            await self._finish(key, entry)
        assert entry.loaded is not None  # `_finish` raises otherwise
        return entry.loaded

    async def _finish(self, key: tuple[str, str | None], entry: _Entry) -> None:
        try:
            entry.loaded = await asyncio.shield(entry.loading)
        except TokenizerError:
            if self._entries.get(key) is entry:
                del self._entries[key]  # the next request looks again
            raise

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


class _Entry:
    """One load, and the times of the files it read."""

    def __init__(
        self, loading: asyncio.Future[ModelTokenizer], times: tuple[int | None, ...], path: str
    ) -> None:
        self.loading = loading
        self.loaded: ModelTokenizer | None = None
        self._times = times
        self._path = path
        self._checked_s = time.monotonic()

    def is_due(self) -> bool:
        return time.monotonic() - self._checked_s > RECHECK_FILES_AFTER_S

    def is_current(self) -> bool:
        self._checked_s = time.monotonic()
        return self._times == _times(self._path)


def _times(path: str) -> tuple[int | None, ...]:
    """Modification times of the folder's files in nanoseconds; None where absent."""
    return tuple(_mtime_ns(Path(path) / name) for name in _FILES)


def _mtime_ns(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


_SPECIAL_NAMES = ("bos_token", "eos_token", "pad_token", "unk_token")


def _read_tokenizer(folder: Path) -> Tokenizer:
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise TokenizerError(
            f"{file} does not exist: point the model's `tokenizer` at a folder with tokenizer.json "
            "(AutoTokenizer.from_pretrained(...).save_pretrained(folder) writes one)"
        )
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the Rust library raises bare Exception
        raise TokenizerError(f"{file} is not a tokenizer that this version can read: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _read_json(file: Path) -> dict[str, Any]:
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


def _end_ids(tokenizer: Tokenizer, special: Mapping[str, str], generation: Mapping[str, Any]) -> list[int]:
    """The tokenizer's EOS first, then those of generation_config, each once."""
    named = special.get("eos_token")
    first = None if named is None else tokenizer.token_to_id(named)
    listed = generation.get("eos_token_id")
    others = listed if isinstance(listed, list) else [listed]
    return list(dict.fromkeys(end for end in [first, *others] if isinstance(end, int)))


def _pad_id(tokenizer: Tokenizer, special: Mapping[str, str], ends: list[int]) -> int | None:
    named = special.get("pad_token")
    pad_id: int | None = None if named is None else tokenizer.token_to_id(named)
    if pad_id is None and ends:
        return ends[0]
    return pad_id


def _adds_bos(tokenizer: Tokenizer, config: Mapping[str, Any], bos_id: int | None) -> bool:
    """What tokenizer_config.json says, else what the tokenizer's post-processor does."""
    if bos_id is None:
        return False
    if config.get("add_bos_token") is True:
        return True
    return bool(tokenizer.encode("", add_special_tokens=True).ids[:1] == [bos_id])


def _read_template(folder: Path, config: Mapping[str, Any]) -> str | None:
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    stated = _read_json(folder / "chat_template.json").get("chat_template") or config.get("chat_template")
    if isinstance(stated, list):  # several by name; the one for plain chat is "default"
        named = {entry["name"]: entry["template"] for entry in stated}
        stated = named.get("default")
    return stated if isinstance(stated, str) else None


def _try(template: ChatTemplate, folder: Path) -> None:
    """Render one plain message, so that a broken template fails at load and not at every request."""
    try:
        template.render(_TRIAL)
    except RequestRefusedError as error:
        if isinstance(error.__cause__, RaisedByTemplateError):
            return  # a template may insist on more than one message
        raise TokenizerError(f"the chat template of {folder} fails on a plain message: {error}") from error
