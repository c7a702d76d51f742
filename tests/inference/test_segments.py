"""A text encoded in parts has exactly the ids of the whole, and what repeats is encoded once."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from inference.segments import SCANNED_CHARACTERS, SegmentCache, Segments
from inference.tokenizer import LONG_TEXT_CHARACTERS, ModelTokenizer
from tests.inference.conftest import TEXTS, TOKENIZERS, byte_fallback, byte_level

EMULATOR_MODELS = Path(__file__).parents[2] / "emulator" / "models"
AWKWARD = [
    AddedToken("<|end", special=True),
    AddedToken("<|end|><", special=True),
    AddedToken("<|right|>", special=True, rstrip=True),
    AddedToken("<left>", special=True, lstrip=True),
    AddedToken("word", special=True, single_word=True),
    AddedToken("<word>", special=True, single_word=True),
    AddedToken(" gap", special=True),
    AddedToken("<Normal>", special=True, normalized=True),
    AddedToken("é>", special=True),
]


def awkward(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.add_special_tokens(AWKWARD)
    return tokenizer


def normalized() -> Tokenizer:
    """Unigram behind a normaliser that changes length, case and spaces."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFKC(),
            normalizers.Lowercase(),
            normalizers.Strip(),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=300, special_tokens=["<s>", "<|end|>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def prepending() -> Tokenizer:
    """As the published Llama 2: the dummy prefix comes from the normaliser, once per part."""
    tokenizer = byte_fallback()
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.pre_tokenizer = None
    return tokenizer


def words() -> Tokenizer:
    """WordPiece, as BERT."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(
        TEXTS, trainers.WordPieceTrainer(vocab_size=300, special_tokens=["<s>", "<|end|>", "<unk>"])
    )
    return tokenizer


def of_emulator(name: str) -> Tokenizer:
    return Tokenizer.from_file(str(EMULATOR_MODELS / name / "tokenizer.json"))


ALL: dict[str, Callable[[], Tokenizer]] = {
    **TOKENIZERS,
    **{f"{name}-awkward": lambda made=made: awkward(made()) for name, made in TOKENIZERS.items()},  # type: ignore[misc]
    "house-chat": lambda: of_emulator("house-chat"),
    "depot-chat": lambda: of_emulator("depot-chat"),
    "normalized": normalized,
    "normalized-awkward": lambda: awkward(normalized()),
    "prepending": prepending,
    "prepending-awkward": lambda: awkward(prepending()),
    "words-awkward": lambda: awkward(words()),
}
_BUILT: dict[str, tuple[Tokenizer, Segments]] = {}


def built(name: str) -> tuple[Tokenizer, Segments]:
    if name not in _BUILT:
        tokenizer = ALL[name]()
        segments = Segments.of(tokenizer)
        assert segments is not None
        _BUILT[name] = tokenizer, segments
    return _BUILT[name]


_BITS = [
    *("<s>", "</s>", "<|end|>", "<|user|>", "<|end", "|>", "<", ">", "<|right|>", "<left>", "word", "<word>"),
    *(" gap", "<Normal>", "<normal>", "é>", "<tool>", " 工具 ", " ", "  ", "\n", "\t", "the", "The quick"),
    *("é", "e\u0301", "東京", "🎉", "\ufb01", "▁", "<0x41>", "1", "'s", "\u00a0", "\u2003"),
]
texts = st.lists(st.one_of(st.sampled_from(_BITS), st.text(max_size=6)), max_size=16).map("".join)


@pytest.mark.parametrize("name", list(ALL))
@settings(max_examples=50)
@given(text=texts)
def test_the_parts_have_the_ids_of_the_whole(name: str, text: str) -> None:
    """Cold and warm; and no character is lost."""
    tokenizer, segments = built(name)
    whole = tokenizer.encode(text, add_special_tokens=False).ids
    segments.cache = SegmentCache()
    assert segments.encode(text) == whole
    assert segments.encode(text) == whole
    assert "".join(segments.split(text)) == text


@pytest.mark.parametrize("name", list(ALL))
@settings(max_examples=50)
@given(history=st.lists(texts, max_size=5), last=texts)
def test_a_growing_conversation_is_encoded_as_if_it_were_new(
    name: str, history: list[str], last: str
) -> None:
    tokenizer, segments = built(name)
    for turns in range(len(history) + 1):
        text = "<s>" + "".join(f"{turn}<|end|>" for turn in history[:turns]) + last
        assert segments.encode(text) == tokenizer.encode(text, add_special_tokens=False).ids


def test_what_repeats_is_not_encoded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    segments = Segments.of(byte_level())
    assert segments is not None
    encoded: list[str] = []
    whole = segments.encode_whole
    monkeypatch.setattr(segments, "encode_whole", lambda text: encoded.append(text) or whole(text))
    history = "<s>You are helpful.<|end|>Hello<|end|>"
    segments.encode(history + "first")
    encoded.clear()
    segments.encode(history + "first<|end|>second")
    assert encoded == ["<|end|>second"]


@pytest.mark.parametrize(
    "change",
    [
        lambda t: setattr(t, "model", models.BPE(dict.fromkeys("ab", 0), [], dropout=0.5)),
        lambda t: setattr(t, "encode_special_tokens", True),
    ],
    ids=["dropout", "special-tokens-are-text"],
)
def test_without_a_guarantee_a_text_is_encoded_whole(change: Callable[[Tokenizer], None]) -> None:
    tokenizer = byte_level()
    change(tokenizer)
    assert Segments.of(tokenizer) is None


def test_no_cut_is_made_where_a_token_looks_around() -> None:
    """Only tokens that are found and taken alike whatever stands before them."""
    _, segments = built("byte-level-awkward")
    assert list(segments.split("a<|right|>  b<left>c word d<word> gapé><Normal>e<|end|>")) == [
        "a",
        "<|right|>  b<left>c word d<word> gapé><Normal>e",
        "<|end|>",
    ]


def test_a_tokenizer_that_fails_the_probes_is_encoded_whole() -> None:
    """Were a token's flags to mean something else one day, no text would be cut."""

    class Deaf:
        """Encodes only what begins a text, as no tokenizer should."""

        def __init__(self, real: Tokenizer) -> None:
            self.real = real

        def __getattr__(self, name: str) -> object:
            return getattr(self.real, name)

        def encode_batch_fast(self, inputs: list[str], **options: bool) -> object:
            return self.real.encode_batch_fast([text[:2] for text in inputs], **options)

    assert Segments.of(Deaf(byte_level())) is None  # type: ignore[arg-type]


def test_the_cache_keeps_what_is_used_and_stays_within_its_bound() -> None:
    cache = SegmentCache(max_bytes=100_000)
    ids = array("I", range(20))
    cache.put("kept", ids)
    for n in range(10_000):
        cache.put(f"text {n}", ids)
        assert cache.get("kept") == ids
    assert "text 9999" in cache
    assert "text 0" not in cache
    assert len(cache) * (49 + 80 + 100) < 100_000
    cache.put("x" * 20_000, ids)
    assert "x" * 20_000 not in cache


def test_threads_share_one_cache() -> None:
    """Small enough that both turn it over all the time."""
    tokenizer = byte_level()
    segments = Segments.of(tokenizer)
    assert segments is not None
    segments.cache = SegmentCache(max_bytes=4000)
    texts = [f"<s>system {n % 7}<|end|>question {n}" for n in range(300)]
    expected = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    results: list[bool] = []

    def work() -> None:
        results.append([segments.encode(text) for text in texts] == expected)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 4


async def test_a_long_text_that_is_mostly_known_needs_no_thread(tokenizer_folder: Path) -> None:
    tokenizer = ModelTokenizer.load(tokenizer_folder)
    short = "<s>" + "the quick fox " * (LONG_TEXT_CHARACTERS // 10) + "<|end|>"
    assert tokenizer.segments is not None
    assert tokenizer.segments.new_characters(short + "new") == len(short) + 3
    tokenizer.encode_rendered(short)
    assert tokenizer.segments.new_characters(short + "new") == len("<|end|>new")
    running = tokenizer.encode_async(short + "new", rendered=True)
    with pytest.raises(StopIteration) as ended:
        running.send(None)
    assert ended.value.value == tokenizer.encode_rendered(short + "new")


def test_a_very_long_text_is_not_looked_through() -> None:
    segments = Segments.of(byte_level())
    assert segments is not None
    text = "<|end|>known" * SCANNED_CHARACTERS
    segments.encode(text)
    assert segments.new_characters(text) == len(text)
