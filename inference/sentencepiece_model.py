"""SentencePiece: a `tokenizer.model`, read as a `tokenizers.Tokenizer`.

The file is a protocol buffer. Its few fields that matter are declared here: the module that the
`sentencepiece` package brings for this demands a newer protobuf than Triton's client allows. Source of
numbers and defaults: `sentencepiece_model.proto`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

from inference.errors import TokenizerError

FILE = "tokenizer.model"
_Field = descriptor_pb2.FieldDescriptorProto
_SPACE = "▁"
_UNIGRAM, _BPE = 1, 2
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6
_FIELDS: Mapping[str, Mapping[str, tuple[int, str, str]]] = {
    "Piece": {"piece": (1, "string", ""), "score": (2, "float", "0"), "type": (3, "int32", "1")},
    "Trainer": {
        "model_type": (3, "int32", "1"),
        "treat_whitespace_as_suffix": (24, "bool", "false"),
        "byte_fallback": (35, "bool", "false"),
        "unk_id": (40, "int32", "0"),
        "bos_id": (41, "int32", "1"),
        "eos_id": (42, "int32", "2"),
        "pad_id": (43, "int32", "-1"),
    },
    "Normalizer": {
        "precompiled_charsmap": (2, "bytes", ""),
        "add_dummy_prefix": (3, "bool", "true"),
        "remove_extra_whitespaces": (4, "bool", "true"),
        "escape_whitespaces": (5, "bool", "true"),
    },
    "Model": {
        "pieces": (1, "Piece", ""),
        "trainer_spec": (2, "Trainer", ""),
        "normalizer_spec": (3, "Normalizer", ""),
    },
}
"""message -> field -> number, type, default."""


def read(file: Path, legacy: bool = True) -> tuple[Tokenizer, dict[str, str]]:
    """The tokenizer, and its special tokens by the names of `tokenizer_config.json`.

    `legacy`, as in that file: the space that begins a text stands after every special token too; otherwise
    only where the whole prompt begins. Raises TokenizerError that names the file.
    """
    data = file.read_bytes()
    try:
        model = _message("Model").FromString(data)
    except DecodeError:
        model = None
    if model is None or not model.pieces:
        raise TokenizerError(
            f"{file} is not a SentencePiece model; is it one of tiktoken's? Add the model's tokenizer.json, "
            "which every release for transformers has"
        )
    try:
        return _built(model, legacy)
    except TokenizerError as error:
        raise TokenizerError(f"{file}: {error}") from error
    except Exception as error:  # the Rust library raises bare Exception
        raise TokenizerError(f"{file} cannot be read by this version: {error}") from error


def _built(model: Any, legacy: bool) -> tuple[Tokenizer, dict[str, str]]:
    kinds = {piece.type for piece in model.pieces}
    trainer, normalizer = model.trainer_spec, model.normalizer_spec
    if _UNUSED in kinds or trainer.treat_whitespace_as_suffix or not normalizer.escape_whitespaces:
        raise TokenizerError(
            "unused pieces, spaces as suffixes and spaces that are not escaped are not read here; "
            "add the model's tokenizer.json"
        )
    tokenizer = Tokenizer(_encoder(model))
    at_begin_only = not legacy or _USER_DEFINED in kinds
    _set_spaces(tokenizer, normalizer, at_begin_only)
    tokenizer.add_special_tokens(
        [
            AddedToken(p.piece, normalized=False, special=True)
            for p in model.pieces
            if p.type in (_UNKNOWN, _CONTROL)
        ]
    )
    tokenizer.add_tokens(
        [AddedToken(p.piece, normalized=False) for p in model.pieces if p.type == _USER_DEFINED]
    )
    names = {"bos_token": trainer.bos_id, "eos_token": trainer.eos_id}
    names |= {"pad_token": trainer.pad_id, "unk_token": trainer.unk_id}
    special = {name: model.pieces[at].piece for name, at in names.items() if 0 <= at < len(model.pieces)}
    special = {name: piece for name, piece in special.items() if tokenizer.token_to_id(piece) == names[name]}
    if "bos_token" in special:
        begin = special["bos_token"]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=[begin, "$A"], special_tokens=[(begin, trainer.bos_id)]
        )
    return tokenizer, special


def _encoder(model: Any) -> models.BPE | models.Unigram:
    kind, fallback = model.trainer_spec.model_type, model.trainer_spec.byte_fallback
    unknown = next((at for at, piece in enumerate(model.pieces) if piece.type == _UNKNOWN), 0)
    if kind == _UNIGRAM:
        scored = [(piece.piece, piece.score) for piece in model.pieces]
        return models.Unigram(scored, unknown, fallback)
    if kind == _BPE:
        return models.BPE(
            {piece.piece: at for at, piece in enumerate(model.pieces)},
            list(_merges(model)),
            unk_token=model.pieces[unknown].piece,
            fuse_unk=True,
            byte_fallback=fallback,
        )
    raise TokenizerError("only BPE and unigram models are read here; add the model's tokenizer.json")


def _merges(model: Any) -> Iterator[tuple[str, str]]:
    """Every pair of pieces that is a piece, best score first."""
    scores = {piece.piece: piece.score for piece in model.pieces if piece.type == _NORMAL}
    for piece in sorted(scores, key=lambda text: -scores[text]):
        pairs = [(piece[:at], piece[at:]) for at in range(1, len(piece))]
        known = [pair for pair in pairs if pair[0] in scores and pair[1] in scores]
        yield from sorted(known, key=lambda pair: (-scores[pair[0]], -scores[pair[1]]))


def _set_spaces(tokenizer: Tokenizer, stated: Any, at_begin_only: bool) -> None:
    """What is done to a text before it is encoded, and undone after."""
    steps: list[Any] = []
    if stated.precompiled_charsmap:
        steps.append(normalizers.Precompiled(stated.precompiled_charsmap))
    if stated.remove_extra_whitespaces:
        steps += [normalizers.Replace(Regex(r"\A +| +\z"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    if stated.add_dummy_prefix and at_begin_only:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(_SPACE, "first", split=False)
    elif stated.add_dummy_prefix:
        steps += [normalizers.Prepend(_SPACE), normalizers.Replace(" ", _SPACE)]
    else:
        steps.append(normalizers.Replace(" ", _SPACE))
    if steps:
        tokenizer.normalizer = normalizers.Sequence(steps)
    undone: list[Any] = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if stated.add_dummy_prefix:
        undone.append(decoders.Strip(" ", 1, 0))
    tokenizer.decoder = decoders.Sequence(undone)


@cache
def _message(name: str) -> Any:
    """The class of one message."""
    package = "enginehouse.sentencepiece"
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto2")
    for message, fields in _FIELDS.items():
        added = file.message_type.add(name=message)
        for field, (number, kind, default) in fields.items():
            described = added.field.add(name=field, number=number)
            described.label = _Field.LABEL_REPEATED if kind == "Piece" else _Field.LABEL_OPTIONAL
            if kind in _FIELDS:
                described.type_name = f".{package}.{kind}"
            else:
                described.type = _Field.Type.Value(f"TYPE_{kind.upper()}")
                described.default_value = default
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}"))
