"""Segments: a text cut where its encoding falls apart, each part encoded once and remembered.

Conversations repeat their system prompt and history. `tokenizers` takes added tokens that are not
`normalized` out of a text before it normalises or pre-tokenises anything; what stands between two of them is
encoded for itself. So a text may be cut *before* each such token, and the ids of the parts are, put together,
the ids of the whole. A part but the first begins with its token and not at offset 0, as in the whole text;
what looks at the offset (Metaspace with `prepend_scheme` "first") therefore decides alike. `Segments.of` says
None where this cannot be relied on. Figures: `docs/decisions/0007-prompts-in-parts.md`.
"""

from __future__ import annotations

import json
import re
import string
import sys
import threading
from array import array
from collections.abc import Iterable, Iterator
from itertools import product
from typing import Any

from tokenizers import AddedToken, Tokenizer

CACHE_BYTES = 32 * 1024 * 1024
"""What one tokenizer may remember in one process, texts and ids together."""
SCANNED_CHARACTERS = 64 * 1024
"""Longer texts are not even looked through on the event loop."""
_ENTRY_BYTES = 100
"""A part's place in a table."""
_ID_TYPE = "I"
_OPENERS = frozenset(string.punctuation) - {"_"}
_LOCAL_MODELS = frozenset({"BPE", "Unigram", "WordPiece", "WordLevel"})
_PROBES = ("", " ", "Hello", "  two  words ", "\n\nline\n", "é東 🎉", "e\u0301 \ufb01", "\t", "a", "0")


class SegmentCache:
    """Ids of parts by their text, bounded in bytes; what was not used lately goes first.

    Two generations: what is used moves to the young one; when that is half the bound, the old one is dropped
    and the young one grows old. Looking up takes no lock, so that threads and the event loop share one cache.
    """

    def __init__(self, max_bytes: int = CACHE_BYTES) -> None:
        self._half = max_bytes // 2
        self._young: dict[str, array[int]] = {}
        self._old: dict[str, array[int]] = {}
        self._young_bytes = 0
        self._lock = threading.Lock()

    def __contains__(self, text: str) -> bool:
        return text in self._young or text in self._old

    def __len__(self) -> int:
        return len({*self._young, *self._old})

    def get(self, text: str) -> array[int] | None:
        """The ids of `text`; not to be changed."""
        ids = self._young.get(text)
        if ids is None:
            ids = self._old.get(text)
            if ids is not None:
                self.put(text, ids)
        return ids

    def put(self, text: str, ids: array[int]) -> None:
        """Remember; a text that alone would take an eighth of the cache is not."""
        size = sys.getsizeof(text) + sys.getsizeof(ids) + _ENTRY_BYTES
        if size > self._half // 4:
            return
        with self._lock:
            if text in self._young:
                return
            if self._young_bytes + size > self._half:
                self._old, self._young, self._young_bytes = self._young, {}, 0
            self._young[text] = ids
            self._young_bytes += size


class Segments:
    """Encodes texts of one tokenizer part by part. Safe to share among threads."""

    def __init__(self, tokenizer: Tokenizer, cutting: Iterable[str], others: Iterable[str] = ()) -> None:
        """Cut before tokens of `cutting`; `others` the tokenizer finds too, but no text may be cut there."""
        self._tokenizer = tokenizer
        self._others = frozenset(others)
        self._tokens = re.compile(_leftmost_longest({*cutting, *self._others}))
        self.cache = SegmentCache()

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Segments | None:
        """Segments of `tokenizer`, or None where a text has to be encoded whole."""
        added = [token for token in tokenizer.get_added_tokens_decoder().values() if not token.normalized]
        cutting = [token.content for token in added if _may_cut(token)]
        if not cutting or not _is_local(tokenizer):
            return None
        others = (token.content for token in added if not _may_cut(token))
        segments = cls(tokenizer, cutting, others)
        if any(segments.encode(text) != segments.encode_whole(text) for text in _probes(cutting)):
            return None
        segments.cache = SegmentCache()
        return segments

    def encode(self, text: str) -> list[int]:
        """The ids of `text`, without what a post-processor would add."""
        cache, ids = self.cache, array(_ID_TYPE)
        for part in self.split(text):
            known = cache.get(part)
            if known is None:
                known = array(_ID_TYPE, self.encode_whole(part))
                cache.put(part, known)
            ids += known
        return ids.tolist()

    def encode_whole(self, text: str) -> list[int]:
        """The ids of `text` in one go."""
        return encode_fast(self._tokenizer, text)

    def new_characters(self, text: str) -> int:
        """Characters of `text` that would have to be encoded; all of them where that is long to tell."""
        if len(text) > SCANNED_CHARACTERS:
            return len(text)
        return sum(len(part) for part in self.split(text) if part not in self.cache)

    def split(self, text: str) -> Iterator[str]:
        """The parts of `text`, none of them empty."""
        begin = 0
        for match in self._tokens.finditer(text):
            end = match.start()
            if end > begin and match[0] not in self._others:
                yield text[begin:end]
                begin = end
        if begin < len(text):
            yield text[begin:]


def encode_fast(tokenizer: Tokenizer, text: str, add_special_tokens: bool = False) -> list[int]:
    """The ids of `text`.

    The fast variant leaves out character offsets, a third of the work, and exists for batches only.
    """
    ids: list[int] = tokenizer.encode_batch_fast([text], add_special_tokens=add_special_tokens)[0].ids
    return ids


def _may_cut(token: AddedToken) -> bool:
    """Whether a text may be cut before `token`, wherever it is found.

    It must be found whatever stands before it (`single_word`), take nothing of that along (`lstrip`), and be
    neither space nor letter to a token before it that looks at what follows.
    """
    return not token.lstrip and not token.single_word and token.content[0] in _OPENERS


def _is_local(tokenizer: Tokenizer) -> bool:
    """Whether the model is one that encodes every split for itself, and always alike."""
    if tokenizer.encode_special_tokens:
        return False
    described: dict[str, Any] = json.loads(tokenizer.model.__getstate__())
    return described["type"] in _LOCAL_MODELS and not described.get("dropout") and not described.get("alpha")


def _leftmost_longest(words: Iterable[str]) -> str:
    """A pattern that finds what the tokenizer finds: the leftmost of `words`, and of those the longest.

    A tree of letters, because `re` tries the alternatives of a plain list one by one.
    """
    tree: dict[str, Any] = {}
    for word in words:
        node = tree
        for letter in word:
            node = node.setdefault(letter, {})
        node[""] = {}
    return _expression(tree)


def _expression(node: dict[str, Any]) -> str:
    branches = [re.escape(letter) + _expression(below) for letter, below in node.items() if letter]
    if not branches:
        return ""
    joined = branches[0] if len(branches) == 1 and "" not in node else f"(?:{'|'.join(branches)})"
    return f"{joined}?" if "" in node else joined


def _probes(cutting: list[str]) -> Iterator[str]:
    """Texts in which a mistake of ours would show, without trying every pair of hundreds of tokens."""
    tokens = cutting[:8]
    for before, after in product(_PROBES, repeat=2):
        for token in tokens[:3]:
            yield before + token + after
    for text in _PROBES:
        yield text.join(["", *tokens, ""])
