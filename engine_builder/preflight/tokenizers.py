"""Looks at the tokenizer: can it be read, is it the checkpoint's, and does the engine know its tokens?"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from engine_builder.checkpoint import TOKENIZER_FILES, Checkpoint
from engine_builder.errors import CheckpointError
from engine_builder.preflight.problems import Look, Problem
from engine_builder.preflight.subject import Subject
from inference.errors import TokenizerError


def readable(subject: Subject) -> Iterator[Problem]:
    """Folders that hold no tokenizer."""
    for model, path in subject.tokenizer_dirs.items():
        if not path.is_dir():
            hub = "" if str(path).startswith("/") else ": a name that the server would look up in a hub"
            yield Problem(
                f"{model}: tokenizer_dir {path} is no folder{hub}",
                "copy the checkpoint's tokenizer files to the server and name their folder",
            )
            continue
        found = subject.tokenizers[path]
        if isinstance(found, TokenizerError):
            yield Problem(f"{model}: {found}", "copy the tokenizer's files of the checkpoint anew")


def same(subject: Subject) -> Iterator[Problem]:
    """Models around one engine that would read and write different tokens."""
    digests = {
        model: _digest(path)
        for model, path in subject.tokenizer_dirs.items()
        if path.is_dir() and any((path / name).is_file() for name in TOKENIZER_FILES)
    }
    if len(set(digests.values())) > 1:
        yield Problem(
            f"{', '.join(digests)} have different tokenizers", "point them all at the checkpoint's tokenizer"
        )
    wanted = None if subject.manifest is None else subject.manifest.tokenizer_digest
    for model, digest in digests.items():
        if wanted is not None and digest != wanted:
            yield Problem(
                f"the tokenizer of {model} is not that of the checkpoint that the engine was built from",
                "fetch the engine anew, and change its tokenizer by building anew",
            )


def template(subject: Subject) -> Iterator[Problem]:
    """A chat template other than the checkpoint's, or one that cannot be rendered."""
    if subject.manifest is None or subject.package is None:
        return
    path = subject.package / "tokenizer"
    try:
        found = Checkpoint.open(str(path)).template_digest() if (path / "config.json").is_file() else None
    except CheckpointError as error:
        yield Problem(f"{path}: {error}", "fetch the engine anew")
        return
    if found != subject.manifest.template_digest:
        yield Problem(
            "the chat template is not that of the checkpoint that the engine was built from",
            "fetch the engine anew; to try another template, set the model's chat_template",
        )


def vocabulary(subject: Subject) -> Iterator[Problem]:
    """Tokens that the engine has no embedding for, or a vocabulary of quite another size."""
    size = subject.pretrained.get("vocab_size")
    if size is None and subject.manifest is not None:
        size = subject.manifest.vocab_size
    if size is None and subject.emulated:
        size = subject.engine_config.get("vocab_size")
    if not isinstance(size, int):
        return
    for model, path in subject.tokenizer_dirs.items():
        tokenizer = subject.tokenizers[path]
        if isinstance(tokenizer, TokenizerError):
            continue
        ids = tokenizer.tokenizer.get_vocab(with_added_tokens=True).values()
        highest = max(ids, default=-1)
        if highest >= size:
            yield Problem(
                f"{model}: its tokenizer has token {highest}, and the engine's vocabulary ends at {size - 1}",
                "use the tokenizer of the engine's checkpoint, or resize the embeddings and build anew",
            )
        elif highest + 1 < size // 2:
            yield Problem(
                f"{model}: its tokenizer has {highest + 1} tokens, and the engine {size}: another model's",
                "use the tokenizer of the engine's checkpoint",
            )


def ends(subject: Subject) -> Iterator[Problem]:
    """Tokenizers that name no end: answers would all run to max_tokens."""
    for model, path in subject.tokenizer_dirs.items():
        tokenizer = subject.tokenizers[path]
        if not isinstance(tokenizer, TokenizerError) and tokenizer.eos_id is None:
            yield Problem(f"{model}: {path} names no end token", "add eos_token to its tokenizer_config.json")


def _digest(path: Path) -> str:
    """As `Checkpoint.tokenizer_digest`: over names and contents of the tokenizer's files."""
    whole = hashlib.sha256()
    for name in TOKENIZER_FILES:
        if (path / name).is_file():
            whole.update(f"{name}\0{hashlib.sha256((path / name).read_bytes()).hexdigest()}\n".encode())
    return whole.hexdigest()


LOOKS = (
    Look("tokenizer_files", readable),
    Look("tokenizer_same", same),
    Look("chat_template", template),
    Look("vocabulary", vocabulary),
    Look("end_token", ends),
)
