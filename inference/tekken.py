"""Tekken: Mistral's `tekken.json`, read as a `tokenizers.Tokenizer`.

The file holds tokens as bytes by rank, of which the lower is merged first, a pattern that splits text before
that, and special tokens, whose ids come first. Source: `mistral_common.tokens.tokenizers.tekken`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors

from inference.detokenizer import BYTE_LEVEL_ALPHABET
from inference.errors import TokenizerError

FILE = "tekken.json"
_BEGIN, _END, _PAD, _UNKNOWN = "<s>", "</s>", "<pad>", "<unk>"
_SPECIAL_BEFORE_V7 = (
    *(
        _UNKNOWN,
        _BEGIN,
        _END,
        "[INST]",
        "[/INST]",
        "[AVAILABLE_TOOLS]",
        "[/AVAILABLE_TOOLS]",
        "[TOOL_RESULTS]",
    ),
    *("[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", _PAD, "[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]"),
    *("[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]"),
)
"""Of files that do not list their own."""
_LETTERS = {byte: letter for letter, byte in BYTE_LEVEL_ALPHABET.items()}


def read(file: Path) -> tuple[Tokenizer, dict[str, str]]:
    """The tokenizer, and its special tokens by the names of `tokenizer_config.json`.

    Raises TokenizerError that names the file.
    """
    try:
        return _built(json.loads(file.read_text(encoding="utf-8")))
    except TokenizerError as error:
        raise TokenizerError(f"{file}: {error}") from error
    except Exception as error:  # whatever a file that is not Tekken's lacks, or the Rust library refuses
        raise TokenizerError(f"{file} is not a Tekken file that this version can read: {error}") from error


def _built(stated: Mapping[str, Any]) -> tuple[Tokenizer, dict[str, str]]:
    config = stated["config"]
    special = _special_tokens(stated.get("special_tokens"), config["default_num_special_tokens"])
    size = config["default_vocab_size"] - len(special)
    ranks = {base64.b64decode(entry["token_bytes"]): entry["rank"] for entry in stated["vocab"]}
    ranks = {token: rank for token, rank in ranks.items() if rank < size}
    vocabulary = {_written(token): len(special) + rank for token, rank in ranks.items()}
    if not vocabulary.keys().isdisjoint(special):
        raise TokenizerError("a special token is an ordinary one too, which cannot be told apart here")
    vocabulary |= {content: token_id for token_id, content in enumerate(special)}
    model = models.BPE(vocabulary, list(_merges(ranks)), ignore_merges=True)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(config["pattern"]), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(content, normalized=False, special=True) for content in special])
    begin = [(_BEGIN, special.index(_BEGIN))]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{_BEGIN} $A", special_tokens=begin)
    named = {"bos_token": _BEGIN, "eos_token": _END, "pad_token": _PAD, "unk_token": _UNKNOWN}
    return tokenizer, {name: content for name, content in named.items() if content in special}


def _special_tokens(listed: list[dict[str, Any]] | None, count: int) -> list[str]:
    """The special tokens by id; ids that have none are filled up, as Mistral's own library does."""
    if listed is None:
        given = dict(enumerate(_SPECIAL_BEFORE_V7))
    else:
        given = {entry["rank"]: entry["token_str"] for entry in listed}
    return [given.get(token_id, f"<SPECIAL_{token_id}>") for token_id in range(count)]


def _merges(ranks: Mapping[bytes, int]) -> Iterator[tuple[str, str]]:
    """Every pair of tokens that is a token, by the rank of what it becomes."""
    for token in sorted(ranks, key=ranks.__getitem__):
        pairs = [(token[:at], token[at:]) for at in range(1, len(token))]
        known = [pair for pair in pairs if pair[0] in ranks and pair[1] in ranks]
        for left, right in sorted(known, key=lambda pair: (ranks[pair[0]], ranks[pair[1]])):
            yield _written(left), _written(right)


def _written(token: bytes) -> str:
    return "".join([_LETTERS[byte] for byte in token])
