"""Tekken and SentencePiece folders give the ids and texts of the libraries they come from."""

from __future__ import annotations

import base64
import json
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import tiktoken
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

from inference.detokenizer import BYTE_LEVEL_ALPHABET, Detokenizer
from inference.errors import TokenizerError
from inference.segments import SegmentCache
from inference.tokenizer import ModelTokenizer
from tests.inference.conftest import TEXTS

PATTERN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|"
    r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Of Mistral's published files."""
SPECIAL = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"]
SPECIAL_COUNT = 20
INNER = 380
"""Ordinary tokens that are used; the file holds some more."""
CHAT = [{"role": "user", "content": "Größe?"}]
TEMPLATE = "{{ bos_token }}{% for m in messages %}[INST]{{ m.content }}[/INST]{% endfor %}"

words = st.sampled_from(
    [
        "the",
        " quick",
        "brown ",
        "Größe",
        "naïve",
        "東京",
        "🎉",
        "  ",
        "\n",
        "\t",
        "▁",
        "x ** 2",
        "aaaa",
        "abab",
        "'s",
    ]
)
texts = (
    st.lists(st.one_of(words, st.text(max_size=8)), max_size=12)
    .map("".join)
    .filter(lambda text: not any(special in text for special in SPECIAL))
)
"""Without special tokens: the libraries of the files leave those text, `tokenizers` does not."""


@cache
def ranks() -> dict[bytes, int]:
    """A byte BPE trained as Tekken's."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False)
    trained.train_from_iterator([*TEXTS, "aaaaaaa abababab " * 5], trainer)
    by_id = sorted(trained.get_vocab(), key=trained.token_to_id)
    merged = [bytes(BYTE_LEVEL_ALPHABET[letter] for letter in token) for token in by_id if len(token) > 1]
    return {token: rank for rank, token in enumerate([*(bytes([byte]) for byte in range(256)), *merged])}


def tekken_file(**changes: Any) -> dict[str, Any]:
    return {
        "config": {
            "pattern": PATTERN,
            "num_vocab_tokens": len(ranks()),
            "default_vocab_size": INNER + SPECIAL_COUNT,
            "default_num_special_tokens": SPECIAL_COUNT,
            "version": "v11",
        },
        "vocab": [
            {"rank": rank, "token_bytes": base64.b64encode(token).decode(), "token_str": None}
            for token, rank in ranks().items()
        ],
        "special_tokens": [
            {"rank": rank, "token_str": token, "is_control": True} for rank, token in enumerate(SPECIAL)
        ],
        "version": 1,
        "type": "Tekken",
        **changes,
    }


def tekken_folder(folder: Path, **changes: Any) -> Path:
    (folder / "tekken.json").write_text(json.dumps(tekken_file(**changes)))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


@pytest.fixture(scope="module")
def tekken(tmp_path_factory: pytest.TempPathFactory) -> ModelTokenizer:
    return ModelTokenizer.load(tekken_folder(tmp_path_factory.mktemp("tekken")))


@cache
def tiktokens() -> tiktoken.Encoding:
    """What Mistral's own library encodes with; it puts the special tokens' ids before."""
    kept = {token: rank for token, rank in ranks().items() if rank < INNER}
    return tiktoken.Encoding("tekken", pat_str=PATTERN, mergeable_ranks=kept, special_tokens={})


@given(text=texts)
def test_tekken_has_the_ids_of_tiktoken(tekken: ModelTokenizer, text: str) -> None:
    """And the way back."""
    ids = tekken.encode(text, add_special_tokens=False)
    assert ids == [SPECIAL_COUNT + rank for rank in tiktokens().encode_ordinary(text)]
    assert tekken.decode(ids) == text == _streamed(tekken, ids)


def test_tekkens_special_tokens(tekken: ModelTokenizer) -> None:
    assert (tekken.bos_id, tekken.end_id, tekken.vocab_size) == (1, 2, INNER + SPECIAL_COUNT)
    assert tekken.adds_bos
    text, ids = tekken.encode_chat(CHAT)
    assert text == "[INST]Größe?[/INST]"
    assert ids == [1, 3, *tekken.encode("Größe?", add_special_tokens=False), 4]
    assert tekken.tokenizer.id_to_token(SPECIAL_COUNT - 1) == f"<SPECIAL_{SPECIAL_COUNT - 1}>"
    assert tekken.decode([1, 3, 4, 2]) == ""
    assert tekken.segments is not None


def test_an_older_tekken_file_has_mistrals_first_special_tokens(tmp_path: Path) -> None:
    loaded = ModelTokenizer.load(tekken_folder(tmp_path, special_tokens=None))
    assert loaded.tokenizer.token_to_id("[TOOL_CALLS]") == 9
    assert loaded.pad_id == 11


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"config": {}}', json.dumps({"config": {"default_num_special_tokens": 1}})]
)
def test_a_broken_tekken_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "tekken.json").write_text(text)
    with pytest.raises(TokenizerError, match=r"tekken\.json"):
        ModelTokenizer.load(tmp_path)


def test_a_tekken_file_with_a_token_twice_is_refused(tmp_path: Path) -> None:
    ordinary = next(token.decode() for token in ranks() if len(token) > 1 and token.isascii())
    special = [{"rank": 0, "token_str": "<s>"}, {"rank": 1, "token_str": ordinary}]
    with pytest.raises(TokenizerError, match="told apart"):
        ModelTokenizer.load(tekken_folder(tmp_path, special_tokens=special))


PIECES: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity"},
    "gemma": {
        "model_type": "bpe",
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "add_dummy_prefix": False,
        "user_defined_symbols": ["<start_of_turn>", "<end_of_turn>"],
    },
    "no-fallback": {"model_type": "bpe", "normalization_rule_name": "identity"},
    "t5": {
        "model_type": "unigram",
        "normalization_rule_name": "nmt_nfkc",
        "remove_extra_whitespaces": True,
        "bos_id": -1,
        "pad_id": 0,
        "eos_id": 1,
        "unk_id": 2,
    },
    "unigram": {"model_type": "unigram", "byte_fallback": True, "normalization_rule_name": "identity"},
}


@cache
def trained(kind: str) -> bytes:
    written = BytesIO()
    options = {"remove_extra_whitespaces": False, "control_symbols": ["[INST]", "[/INST]"], **PIECES[kind]}
    lines = [line for text in TEXTS for line in text.split("\n") if line] * 3
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=written,
        vocab_size=380 if options.get("byte_fallback") else 120,
        character_coverage=0.98,
        hard_vocab_limit=False,
        minloglevel=2,
        **options,
    )
    return written.getvalue()


@cache
def reference(kind: str) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_proto=trained(kind))


def pieces_folder(folder: Path, kind: str, **config: Any) -> Path:
    (folder / "tokenizer.model").write_bytes(trained(kind))
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE, **config}))
    return folder


@pytest.fixture(scope="module", params=list(PIECES))
def pieces(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, ModelTokenizer]:
    folder = pieces_folder(tmp_path_factory.mktemp("pieces"), request.param)
    return request.param, ModelTokenizer.load(folder)


@given(text=texts)
def test_sentencepiece_has_its_own_ids(pieces: tuple[str, ModelTokenizer], text: str) -> None:
    """And the way back."""
    kind, tokenizer = pieces
    text = text.replace("\0", "")  # ends a text inside SentencePiece
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert ids == reference(kind).encode(text)
    if reference(kind).unk_id() not in ids:
        assert tokenizer.decode(ids) == reference(kind).decode(ids) == _streamed(tokenizer, ids)


@pytest.fixture(scope="module", params=[kind for kind in PIECES if PIECES[kind].get("byte_fallback")])
def with_bytes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ModelTokenizer:
    return ModelTokenizer.load(pieces_folder(tmp_path_factory.mktemp("pieces"), request.param))


@given(text=texts)
def test_what_has_bytes_for_the_rest_loses_nothing(with_bytes: ModelTokenizer, text: str) -> None:
    text = text.replace("▁", " ")
    assert with_bytes.decode(with_bytes.encode(text)) == text


@given(contents=st.lists(texts, min_size=1, max_size=4))
def test_chats_of_every_kind_are_encoded_in_parts(
    pieces: tuple[str, ModelTokenizer], contents: list[str]
) -> None:
    _, tokenizer = pieces
    text = "".join(f"<s>[INST]{content}[/INST]" for content in contents)
    assert tokenizer.segments is not None
    tokenizer.segments.cache = SegmentCache()
    for _ in range(2):
        assert (
            tokenizer.segments.encode(text) == tokenizer.tokenizer.encode(text, add_special_tokens=False).ids
        )


def test_sentencepieces_special_tokens(pieces: tuple[str, ModelTokenizer]) -> None:
    kind, tokenizer = pieces
    model = reference(kind)
    assert tokenizer.end_id == model.eos_id()
    assert tokenizer.bos_id == (model.bos_id() if model.bos_id() >= 0 else None)
    assert tokenizer.adds_bos is (model.bos_id() >= 0)
    assert tokenizer.vocab_size == model.vocab_size()
    begin, end = model.piece_to_id("[INST]"), model.piece_to_id("[/INST]")
    content = model.encode("Größe?")
    expected = [begin, *content, end]
    assert tokenizer.encode_chat(CHAT)[1] == ([model.bos_id(), *expected] if tokenizer.adds_bos else expected)


def test_not_legacy_only_the_prompt_begins_with_a_space(tmp_path: Path) -> None:
    tokenizer = ModelTokenizer.load(pieces_folder(tmp_path, "llama", legacy=False))
    plain = reference("llama")
    assert tokenizer.encode("the fox", add_special_tokens=False) == plain.encode("the fox")
    begin, *content = tokenizer.encode("[INST]the fox", add_special_tokens=False)
    assert begin == plain.piece_to_id("[INST]")
    assert "".join(map(plain.id_to_piece, content)) == "the▁fox"


def test_user_defined_symbols_are_one_token(tmp_path: Path) -> None:
    tokenizer = ModelTokenizer.load(pieces_folder(tmp_path, "gemma"))
    text = "<start_of_turn>the fox<end_of_turn>\n"
    assert tokenizer.encode(text, add_special_tokens=False) == reference("gemma").encode(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("data", [b"", b"IQ== 0\nIg== 1\n", b"\xff\xff\xff"])
def test_what_is_no_sentencepiece_model_is_named(tmp_path: Path, data: bytes) -> None:
    """Llama 3 ships a file of the same name that is tiktoken's."""
    (tmp_path / "tokenizer.model").write_bytes(data)
    with pytest.raises(
        TokenizerError, match=r"tokenizer\.model is not a SentencePiece model.*tokenizer\.json"
    ):
        ModelTokenizer.load(tmp_path)


@pytest.mark.parametrize("model_type", ["word", "char"])
def test_kinds_that_are_not_read_are_named(tmp_path: Path, model_type: str) -> None:
    written = BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS[:1]), model_writer=written, model_type=model_type, vocab_size=20,
        hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    (tmp_path / "tokenizer.model").write_bytes(written.getvalue())
    with pytest.raises(TokenizerError, match="only BPE and unigram"):
        ModelTokenizer.load(tmp_path)


def test_tokenizer_json_comes_first(tmp_path: Path, tokenizer_folder: Path) -> None:
    tekken_folder(tokenizer_folder)
    pieces_folder(tokenizer_folder, "llama")
    assert ModelTokenizer.load(tokenizer_folder).tokenizer.token_to_id("<|end|>") is not None


def _streamed(tokenizer: ModelTokenizer, ids: list[int]) -> str:
    detokenizer: Detokenizer = tokenizer.detokenizer()
    return "".join(detokenizer.push([token_id]) for token_id in ids) + detokenizer.flush()
