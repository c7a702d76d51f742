"""The tokenizer's files of a checkpoint, copied into a package, and what guided decoding wants of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fsspec

from engine_builder.checkpoint import Checkpoint
from engine_builder.errors import PackageError
from inference.errors import TokenizerError
from inference.tokenizer import ModelTokenizer
from inference.tokenizer_folder import FILES

GUIDES = "xgrammar_tokenizer_info.json"
_MORE = ("special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "config.json")
"""Beside what the gateway reads: what Hugging Face's own loader looks for."""


def copy_tokenizer(checkpoint: Checkpoint, into: Path) -> None:
    """Copies what there is of the tokenizer. Raises PackageError."""
    into.mkdir(parents=True, exist_ok=True)
    for name in (*FILES, *_MORE):
        if name not in checkpoint.files:
            continue
        try:
            with fsspec.open(f"{checkpoint.url.rstrip('/')}/{name}", "rb") as file:
                (into / name).write_bytes(file.read())
        except OSError as error:
            raise PackageError(f"{checkpoint.url}/{name} cannot be read: {error}") from error


def write_guides_file(folder: Path) -> bool:
    """Writes what TensorRT-LLM's guided decoding reads (contract sheet §1.2); False without tokenizer.json.

    Tokens by id, the tokenizer's own JSON, and the ids that end an answer. Raises PackageError.
    """
    source = folder / "tokenizer.json"
    if not source.is_file():
        return False
    try:
        tokenizer = ModelTokenizer.load(folder)
    except TokenizerError as error:
        raise PackageError(
            f"the checkpoint's tokenizer cannot be read: {error}", "fetch the checkpoint anew"
        ) from error
    by_id = sorted(tokenizer.tokenizer.get_vocab(with_added_tokens=True).items(), key=lambda item: item[1])
    whole: dict[str, Any] = {
        "encoded_vocab": [token for token, _ in by_id],
        "tokenizer_str": source.read_text(encoding="utf-8"),
        "stop_token_ids": sorted(tokenizer.end_ids),
    }
    (folder / GUIDES).write_text(json.dumps(whole) + "\n", encoding="utf-8")
    return True
