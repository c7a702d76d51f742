"""Options in the tensors that one schema declares: guides, biases, bad words, end tokens.

Sources: contract sheet 1.1 (bare), 1.4 (text) and 1.9 (guides). `llmapi` models have none of these tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, chain
from typing import Any

from inference.lanes.sampling import unsupported
from inference.request import InferenceRequest, Options
from inference.schema import Schema

_GUIDE_TYPE = "guided_decoding_guide_type"
_GUIDE = "guided_decoding_guide"
_NO_BACKEND = "its engine has no guided_decoding_backend and would ignore it"


class OptionTensors:
    """Carries or refuses what few requests ask for."""

    def __init__(self, schema: Schema) -> None:
        declared = schema.inputs
        self._lane = schema.lane
        self._takes_ids = schema.lane == "tensorrt_llm"
        self._guides = schema.guided_decoding
        self._has_guide = _GUIDE_TYPE in declared and _GUIDE in declared
        self._has_bias = (
            "embedding_bias" in declared
            if self._takes_ids
            else "embedding_bias_words" in declared and "embedding_bias_weights" in declared
        )
        self._bad_words = "bad_words_list" if self._takes_ids else "bad_words"
        self._has_bad_words = self._bad_words in declared
        self._has_end_id = "end_id" in declared
        self._tells_count = self._takes_ids or "num_output_tokens" in schema.outputs
        self._has_stop_ids = self._takes_ids and "stop_words_list" in declared
        self._server_adds_tokens = not self._takes_ids and schema.adds_special_tokens

    def check(self, request: InferenceRequest) -> None:
        """Raise UnsupportedFeatureError, by the client's name, for what this schema has no tensor for."""
        if request.guide is not None:
            if not self._has_guide:
                raise unsupported(self._lane, "response_format", request)
            if not self._guides:
                raise unsupported(self._lane, "response_format", request, _NO_BACKEND)
        options = request.options
        if options is None:
            return
        for name, extra in options.extras.items():
            raise unsupported(self._lane, name, request, extra.why)
        if options.ignore_eos and not self._tells_count:
            raise unsupported(
                self._lane, "ignore_eos", request, "its server does not tell an answer's length"
            )
        for asked, carried, name in (
            (options.logit_bias is not None, self._carries_bias(options), "logit_bias"),
            (options.bad_words, self._has_bad_words, "bad_words"),
            (options.ignore_eos, self._has_end_id, "ignore_eos"),
            (options.stop_token_ids, self._has_stop_ids, "stop_token_ids"),
            (not options.skip_special_tokens, self._takes_ids, "skip_special_tokens"),
            (not options.add_special_tokens, not self._server_adds_tokens, "add_special_tokens"),
        ):
            if asked and not carried:
                raise unsupported(self._lane, name, request)

    def tensors(self, request: InferenceRequest) -> dict[str, Any]:
        """Tensors for a request that `check` let through."""
        tensors: dict[str, Any] = {}
        if request.guide is not None:
            tensors[_GUIDE_TYPE] = request.guide.kind
            if request.guide.text:
                tensors[_GUIDE] = request.guide.text
        options = request.options
        if options is None:
            return tensors
        if options.logit_bias is not None:
            tensors |= self._bias(options)
        if options.bad_words:
            bad = words_list(options.bad_ids) if self._takes_ids else list(options.bad_words)
            tensors[self._bad_words] = bad
        return tensors

    def _carries_bias(self, options: Options) -> bool:
        """Text lanes take words: only where each is that one token again."""
        bias = options.logit_bias
        return self._has_bias and (self._takes_ids or (bias is not None and bias.words is not None))

    def _bias(self, options: Options) -> dict[str, Any]:
        bias = options.logit_bias
        assert bias is not None
        if self._takes_ids:
            return {"embedding_bias": bias}
        return {
            "embedding_bias_words": list(bias.words or ()),
            "embedding_bias_weights": list(bias.biases.values()),
        }


def words_list(words: Sequence[Sequence[int]]) -> list[int]:
    """Stop or bad words as a flat row-major [2, n]: all ids, then where each word ends, padded with -1."""
    ids = list(chain.from_iterable(words))
    ends = list(accumulate(len(word) for word in words))
    width = max(len(ids), len(ends))
    return ids + [0] * (width - len(ids)) + ends + [-1] * (width - len(ends))
