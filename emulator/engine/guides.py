"""Guided decoding: which tokens a JSON schema, an expression or a grammar allows next.

Stands where TensorRT-LLM has XGrammar. Grammars are compiled once and kept, the most recently used
ones; each request then walks a copy of its own. The end token is allowed only where the text may
end, and once it was taken nothing is masked any more. The only module that needs `llguidance`.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from llguidance import LLMatcher, LLTokenizer, grammar_from

from emulator.engine.api import Guide
from emulator.engine.errors import GuideError
from emulator.engine.guide_schema import ANY_DOCUMENT, bounded
from emulator.engine.weights import Array, ModelConfig

KEPT_GRAMMARS = 64


class GuideState:
    """Where one request stands in its grammar; used by the step thread."""

    def __init__(self, matcher: LLMatcher, end_id: int) -> None:
        self._matcher = matcher
        self._end_id = end_id
        self._ended = False

    def mask(self, row: Array) -> None:
        """Makes what the grammar does not allow next impossible.

        The grammar wins where all that it allows was forbidden before (`min_tokens`, bad words).
        """
        if self._ended:
            return
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        allowed = np.unpackbits(bits, count=len(row), bitorder="little").astype(bool)
        row[~allowed] = -np.inf
        if np.isneginf(row[allowed]).all():
            row[allowed] = 0.0

    def accept(self, token: int) -> None:
        """Takes the token that was chosen."""
        if self._ended:
            return
        self._ended = token == self._end_id
        self._matcher.consume_token(token)


class Guides:
    """Compiles guides for one model folder; may be called from any thread."""

    def __init__(self, model_dir: Path, config: ModelConfig) -> None:
        text = (model_dir / "tokenizer.json").read_text(encoding="utf-8")
        self._end_id = config.eos_token_id
        self._tokenizer = LLTokenizer(text, n_vocab=config.vocab_size, eos_token=self._end_id, slices=[])
        self._lock = threading.Lock()
        self._compiled: OrderedDict[Guide, LLMatcher] = OrderedDict()

    def start(self, guide: Guide) -> GuideState:
        """The beginning of a guide. Raises GuideError when it cannot be compiled."""
        with self._lock:
            matcher = self._compiled.pop(guide, None) or self._compile(guide)
            self._compiled[guide] = matcher
            if len(self._compiled) > KEPT_GRAMMARS:
                self._compiled.popitem(last=False)
            return GuideState(matcher.deep_copy(), self._end_id)

    def _compile(self, guide: Guide) -> LLMatcher:
        try:
            matcher = LLMatcher(self._tokenizer, _grammar(guide), log_level=0)
        except (ValueError, TypeError, AttributeError) as error:
            raise GuideError(str(error)) from error
        if matcher.is_error():
            raise GuideError(matcher.get_error())
        return matcher


def _grammar(guide: Guide) -> str:
    text = guide.text or ""
    if guide.kind == "json":
        return _json_grammar(ANY_DOCUMENT)
    if guide.kind == "json_schema":
        return _json_grammar(bounded(json.loads(text)))
    if guide.kind == "regex":
        return LLMatcher.grammar_from_regex(text)
    return grammar_from("ebnf", text)


def _json_grammar(schema: Any) -> str:
    """No white space is free, since a small model would write nothing else; unknown keywords are
    left alone, as XGrammar does."""
    return LLMatcher.grammar_from_json_schema(
        json.dumps(schema),
        overrides={
            "whitespace_flexible": False,
            "item_separator": ", ",
            "key_separator": ": ",
            "coerce_one_of": True,
            "lenient": True,
        },
    )
