"""ModelTokenizer: what one model's tokenizer folder says, ready to use.

Immutable once loaded, but for what it remembers; `Tokenizers` keeps one per folder and template and reloads
it when the files change. Which files there may be: `inference.tokenizer_folder`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from inference.detokenizer import Detokenizer, Pieces
from inference.errors import TokenizerError
from inference.rendering import Templates
from inference.segments import Segments, encode_fast
from inference.tokenizer_folder import (
    FILES,
    adds_bos,
    end_ids,
    pad_id,
    read_json,
    read_template_sources,
    read_tokenizer,
    templates,
)
from model_registry.entities import Model

LONG_TEXT_CHARACTERS = 4096
"""Longer texts are encoded in a thread: about 1 ms of work, more than the event loop should wait."""
RECHECK_FILES_AFTER_S = 5.0
"""How old a look at the files' times may be."""


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
    templates: Templates | None
    segments: Segments | None
    """Encodes what repeats only once; None: this tokenizer's texts have to be encoded whole."""
    pool: ThreadPoolExecutor | None = field(default=None, repr=False, compare=False)
    """Where long texts are encoded; None: asyncio's own threads."""
    template_pool: ThreadPoolExecutor | None = field(default=None, repr=False, compare=False)
    """Where long conversations are rendered: not where texts wait that other models' requests bring."""

    @classmethod
    def load(
        cls,
        path: str | Path,
        chat_template: str | None = None,
        pool: ThreadPoolExecutor | None = None,
        template_pool: ThreadPoolExecutor | None = None,
    ) -> ModelTokenizer:
        """Read a folder; `chat_template` replaces the folder's own.

        Raises TokenizerError that names the file and what to do.
        """
        folder = Path(path)
        config = read_json(folder / "tokenizer_config.json")
        generation = read_json(folder / "generation_config.json")
        tokenizer, special = read_tokenizer(folder, config)
        ends = end_ids(tokenizer, special, generation)
        sources = {"default": chat_template} if chat_template else read_template_sources(folder, config)
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
            pad_id=pad_id(tokenizer, special, ends),
            stop_ids=tuple((end,) for end in ends[1:]),
            adds_bos=adds_bos(tokenizer, config, bos_id),
            templates=templates(sources, special, folder),
            segments=Segments.of(tokenizer),
            pool=pool,
            template_pool=template_pool,
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

    def token_id(self, token: str) -> int | None:
        """The id of a token by its text; None where the vocabulary has none of it."""
        found: int | None = self.tokenizer.token_to_id(token)
        return found

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes of one token, which may be a part of a character."""
        if self.pieces is None:
            return self.tokenizer.decode([token_id], skip_special_tokens=False).encode()
        piece = self.pieces[token_id]
        return piece.encode() if isinstance(piece, str) else piece

    def word_of(self, token_id: int) -> str | None:
        """The text that becomes just this token; None where there is none."""
        text: str = self.tokenizer.decode([token_id], skip_special_tokens=False)
        return text if text and self._ids(text, add_special_tokens=False) == [token_id] else None

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """The text of `ids`, without special tokens unless told so."""
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens)
        return text

    async def decode_async(self, ids: Sequence[int]) -> str:
        """The text of `ids`, special tokens included; many ids do not hold up the event loop."""
        decode = partial(self.tokenizer.decode, list(ids), skip_special_tokens=False)
        if len(ids) <= LONG_TEXT_CHARACTERS:
            return decode()
        return await asyncio.get_running_loop().run_in_executor(self.pool, decode)

    @cached_property
    def pieces(self) -> Pieces | None:
        return Pieces.of(self.tokenizer)

    def detokenizer(
        self, skip_special_tokens: bool = True, keep: frozenset[str] = frozenset()
    ) -> Detokenizer:
        """A detokenizer for one answer, without special tokens unless told so, on this tokenizer's tables.

        Of those that are skipped, `keep` are text all the same; tokens that end an answer are never kept.
        """
        if not skip_special_tokens:
            return Detokenizer(self.tokenizer, skip_special_tokens=False, pieces=self._all_pieces)
        kept = keep & self._special if keep else keep
        if not kept:
            return Detokenizer(self.tokenizer, pieces=self.pieces)
        if kept not in self._pieces_keeping:
            self._pieces_keeping[kept] = Pieces.of(self.tokenizer, keep=kept)
        return Detokenizer(self.tokenizer, pieces=self._pieces_keeping[kept], keep=kept)

    @cached_property
    def _all_pieces(self) -> Pieces | None:
        return Pieces.of(self.tokenizer, skip_special_tokens=False)

    @cached_property
    def _special(self) -> frozenset[str]:
        """Special tokens that may stand within an answer."""
        added = self.tokenizer.get_added_tokens_decoder()
        return frozenset(t.content for id_, t in added.items() if t.special and id_ not in self.end_ids)

    @cached_property
    def _pieces_keeping(self) -> dict[frozenset[str], Pieces | None]:
        """As `pieces`, by the special tokens that are kept; a model's parsers want one set or two."""
        return {}

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
        return self._without_bos(self._templates().render(messages, tools, **template_names))

    async def render_async(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        **template_names: Any,
    ) -> str:
        """As `render`; a long conversation, or a slow template, does not hold up the event loop."""
        rendering = self._templates().render_async(messages, tools, self.template_pool, **template_names)
        return self._without_bos(await rendering)

    def _templates(self) -> Templates:
        if self.templates is None:
            raise TokenizerError(
                f"{self.path} has no chat template: add chat_template.jinja to it, "
                "or set the model's chat_template; /v1/completions works without one"
            )
        return self.templates

    def _without_bos(self, text: str) -> str:
        return text.removeprefix(self.bos_token) if self.adds_bos and self.bos_token else text

    def encode_rendered(self, text: str) -> list[int]:
        """Ids of a prompt from `render`; what it has in common with earlier ones is not encoded again."""
        ids = self._ids(text, False) if self.segments is None else self.segments.encode(text)
        return self._with_one_bos(ids)

    async def encode_async(
        self, text: str, add_special_tokens: bool = True, rendered: bool = False
    ) -> list[int]:
        """As `encode`, or `encode_rendered`; a long text does not hold up the event loop."""
        encode = (
            self.encode_rendered if rendered else partial(self.encode, add_special_tokens=add_special_tokens)
        )
        if len(text) <= LONG_TEXT_CHARACTERS or (rendered and self._is_mostly_known(text)):
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

    def _is_mostly_known(self, text: str) -> bool:
        return self.segments is not None and self.segments.new_characters(text) <= LONG_TEXT_CHARACTERS

    def _ids(self, text: str, add_special_tokens: bool) -> list[int]:
        return encode_fast(self.tokenizer, text, add_special_tokens)

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
        self._template_pool = ThreadPoolExecutor(threads, thread_name_prefix="chat-template")
        self._entries: dict[tuple[str, str | None], _Entry] = {}

    async def get(self, model: Model) -> ModelTokenizer:
        """The tokenizer of `model`. Raises TokenizerError, naming the path and the remedy."""
        if model.tokenizer is None:
            raise TokenizerError(f"model {model.name!r} has no tokenizer: set its `tokenizer` to a folder")
        key = (model.tokenizer, model.chat_template)
        entry = self._entries.get(key)
        if entry is None or (entry.is_due() and not entry.is_current()):
            load = partial(ModelTokenizer.load, *key, pool=self._pool, template_pool=self._template_pool)
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
        for pool in (self._pool, self._template_pool):
            pool.shutdown(wait=False, cancel_futures=True)


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
    return tuple(_mtime_ns(Path(path) / name) for name in FILES)


def _mtime_ns(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None
