"""Detokenizer: token ids in, text that is certain out, as tokens arrive.

A tokenizer whose decoder only glues bytes together (byte-level BPE, SentencePiece with byte fallback) is read
from a table `id -> text or bytes` and a UTF-8 tail of at most three bytes. Every other decoder is asked for a
short window of ids and compared with its own answer without the newest ones. Figures:
`docs/decisions/0003-detokenisation.md`.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tokenizers import Tokenizer

_REPLACEMENT = "\ufffd"
_ESCAPED_BYTE = re.compile("[\udc80-\udcff]")
_WINDOW_IDS = 8
"""Ids before the newest that a windowed decoder may look back on."""
_LONGEST_CHARACTER_IDS = 4
"""A UTF-8 character has at most four bytes, so at most four byte tokens."""


@dataclass(frozen=True, slots=True)
class _Style:
    """How a decoder that only glues bytes turns a token into them."""

    kind: Literal["byte-level", "byte-fallback"]
    space: str = ""
    """What stands for a space in tokens of the byte-fallback kind."""
    strips_first_space: bool = False

    @property
    def errors(self) -> str:
        """Byte-level: one U+FFFD per undecodable sequence; byte fallback: one per byte."""
        return "replace" if self.kind == "byte-level" else "surrogateescape"


class Pieces(dict[int, str | bytes]):
    """`id -> str`, or `bytes` where the token alone is not whole UTF-8. Filled as ids are seen, then shared.

    Ids that the tokenizer does not know, and special tokens when they are skipped, are the empty string.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        style: _Style,
        skip_special_tokens: bool,
        keep: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__()
        self.style = style
        self._token_of = tokenizer.id_to_token
        self._skipped = _special_contents(tokenizer) - keep if skip_special_tokens else frozenset()
        self._bytes_of: Callable[[str], bytes] = (
            _byte_level_bytes if style.kind == "byte-level" else self._byte_fallback_bytes
        )

    @classmethod
    def of(
        cls, tokenizer: Tokenizer, skip_special_tokens: bool = True, keep: frozenset[str] = frozenset()
    ) -> Pieces | None:
        """The table of `tokenizer`, or None when its decoder does more than glue bytes.

        Special tokens to `keep` are text although others are skipped.
        """
        style = _style_of(tokenizer)
        return None if style is None else cls(tokenizer, style, skip_special_tokens, keep)

    def __missing__(self, token_id: int) -> str | bytes:
        try:
            token = self._token_of(token_id)
        except OverflowError:  # outside of 32 bits unsigned: no token either
            token = None
        piece: str | bytes = ""
        if token is not None and token not in self._skipped:
            data = self._bytes_of(token)
            try:
                piece = data.decode()
            except UnicodeDecodeError:
                piece = data
        self[token_id] = piece
        return piece

    def _byte_fallback_bytes(self, token: str) -> bytes:
        if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            try:
                return bytes([int(token[3:5], 16)])
            except ValueError:
                pass  # "<0xZZ>" is ordinary text
        return token.replace(self.style.space, " ").encode()


class Detokenizer:
    """Turns the ids of one answer into text.

    The concatenation of all `push` and the final `flush` equals the tokenizer's one-shot decode, with one
    exception: byte-fallback decoders replace a *whole* run of byte tokens by U+FFFD when it ends invalid;
    here the characters that were complete before stay.
    """

    __slots__ = ("_at_start", "_errors", "_fallback", "_pieces", "_tail")

    def __init__(
        self,
        tokenizer: Tokenizer,
        skip_special_tokens: bool = True,
        pieces: Pieces | None = None,
        keep: frozenset[str] = frozenset(),
    ) -> None:
        """`pieces`: the shared table of this tokenizer, if the caller has one; `keep`: as for `Pieces.of`."""
        table = pieces if pieces is not None else Pieces.of(tokenizer, skip_special_tokens, keep)
        self._pieces: dict[int, str | bytes] = {} if table is None else table
        self._fallback = _Window(tokenizer, skip_special_tokens, keep) if table is None else None
        self._errors = "replace" if table is None else table.style.errors
        self._at_start = table is not None and table.style.strips_first_space
        self._tail = b""

    def push(self, ids: Sequence[int]) -> str:
        """Take new ids; return the text that no later id can change."""
        if self._fallback is not None:
            return self._fallback.push(ids)
        pieces = self._pieces
        if not self._tail and len(ids) == 1 and not self._at_start:
            piece = pieces[ids[0]]
            if piece.__class__ is str:
                return piece
        text = "".join([self._take(pieces[token_id]) for token_id in ids])
        if self._at_start and text:
            self._at_start = False
            return text.removeprefix(" ")
        return text

    def flush(self) -> str:
        """The text still held back: an unfinished character is U+FFFD now."""
        if self._fallback is not None:
            return self._fallback.flush()
        text = self._decode(b"", final=True)
        if self._at_start:
            self._at_start = False
            return text.removeprefix(" ")
        return text

    def _take(self, piece: str | bytes) -> str:
        if isinstance(piece, str):
            if not self._tail or not piece:
                return piece
            return self._decode(piece.encode())
        return self._decode(piece)

    def _decode(self, data: bytes, final: bool = False) -> str:
        data = self._tail + data
        text, used = codecs.utf_8_decode(data, self._errors, final)
        tail = data[used:]
        if tail[:1] == b"\xed" and tail[1:2] >= b"\xa0":  # CPython waits, but no character begins like this
            more, _ = codecs.utf_8_decode(tail, self._errors, True)
            text, tail = text + more, b""
        self._tail = tail
        if self._errors == "surrogateescape" and not text.isascii():
            return _ESCAPED_BYTE.sub(_REPLACEMENT, text)
        return text


class _Window:
    """Any decoder: text = decode(window) minus decode(window without the newest ids).

    Exact where a token's text depends on at most `_WINDOW_IDS` ids before it. Text that ends in U+FFFD is
    held back while it may still be an unfinished character.
    """

    __slots__ = ("_ids", "_shown", "_silent", "_skip", "_tokenizer")

    def __init__(self, tokenizer: Tokenizer, skip_special_tokens: bool, keep: frozenset[str]) -> None:
        self._tokenizer = tokenizer
        self._skip = skip_special_tokens and not keep  # those to skip are kept out anyway
        added = tokenizer.get_added_tokens_decoder()
        special = (id_ for id_, token in added.items() if token.special and token.content not in keep)
        self._silent = frozenset(special if skip_special_tokens else ())
        """Ids without text; kept out, a window of them alone would look like the beginning of an answer."""
        self._ids: list[int] = []
        self._shown = 0
        """How many of `_ids` have been turned into text."""

    def push(self, ids: Sequence[int]) -> str:
        return "".join([self._push_one(token_id) for token_id in ids])

    def _push_one(self, token_id: int) -> str:
        if not 0 <= token_id < 2**32 or token_id in self._silent:
            return ""
        self._ids.append(token_id)
        text = self._new_text()
        waiting = len(self._ids) - self._shown
        if text.endswith(_REPLACEMENT) and waiting < _LONGEST_CHARACTER_IDS:
            return ""
        return self._show(text)

    def flush(self) -> str:
        return self._show(self._new_text()) if self._shown < len(self._ids) else ""

    def _new_text(self) -> str:
        shown = self._text_of(self._ids[: self._shown])
        return self._text_of(self._ids)[len(shown) :]

    def _text_of(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=self._skip) if ids else ""
        return text

    def _show(self, text: str) -> str:
        self._shown = len(self._ids)
        if self._shown > 2 * _WINDOW_IDS:
            # The first id of a window may lose a leading space; both decodes of `_new_text` lose it alike.
            self._ids = self._ids[-_WINDOW_IDS:]
            self._shown = len(self._ids)
        return text


def _style_of(tokenizer: Tokenizer) -> _Style | None:
    if tokenizer.decoder is None:
        return None
    state: dict[str, Any] = json.loads(tokenizer.decoder.__getstate__())
    steps = state["decoders"] if state["type"] == "Sequence" else [state]
    match [step["type"] for step in steps]:
        case ["ByteLevel"]:
            return _Style("byte-level")
        case ["Replace", "ByteFallback", "Fuse"] if _is_space(steps[0]):
            return _Style("byte-fallback", steps[0]["pattern"]["String"])
        case ["Replace", "ByteFallback", "Fuse", "Strip"] if _is_space(steps[0]) and _is_one_space(steps[3]):
            return _Style("byte-fallback", steps[0]["pattern"]["String"], strips_first_space=True)
    return None


def _is_space(replace: dict[str, Any]) -> bool:
    return bool(replace["content"] == " " and replace["pattern"].get("String"))


def _is_one_space(strip: dict[str, Any]) -> bool:
    return (strip["content"], strip["start"], strip["stop"]) == (" ", 1, 0)


def _special_contents(tokenizer: Tokenizer) -> frozenset[str]:
    return frozenset(t.content for t in tokenizer.get_added_tokens_decoder().values() if t.special)


def _byte_level_alphabet() -> dict[str, int]:
    """GPT-2's character for each byte: printable Latin-1 stands for itself, the rest for U+0100 and up."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if byte not in set(printable))
    return alphabet | {chr(0x100 + offset): byte for offset, byte in enumerate(others)}


BYTE_LEVEL_ALPHABET = _byte_level_alphabet()


_SPACE = chr(0x120)
"""The byte-level character of a space."""


def _byte_level_bytes(token: str) -> bytes:
    word = token.removeprefix(_SPACE)
    if word.isascii() and word.isprintable() and " " not in word:  # these stand for themselves
        return word.encode() if word is token else b" " + word.encode()
    try:
        return bytes([BYTE_LEVEL_ALPHABET[character] for character in token])
    except KeyError:  # an added token with characters outside of the alphabet stands for itself
        return token.encode()
