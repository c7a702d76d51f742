"""What few requests have, and each lane carries by the contract's names or refuses by ours."""

from __future__ import annotations

from dataclasses import replace

import pytest

from inference.errors import UnsupportedFeatureError
from inference.lanes import lane_of
from inference.logit_bias import LogitBias
from inference.request import Extra, Guide, Options
from inference.schema import Schema
from tests.inference.lane_schemas import (
    BARE,
    BARE_INPUTS,
    BARE_OUTPUTS,
    BLS,
    ENSEMBLE,
    LLMAPI,
    TEXT_INPUTS,
    TEXT_OUTPUTS,
    request,
    schema,
    tensors,
)

OPTION_INPUTS = {
    "embedding_bias": "FP32",
    "bad_words_list": "INT32",
    "guided_decoding_guide_type": "BYTES",
    "guided_decoding_guide": "BYTES",
}
TEXT_OPTION_INPUTS = {
    "bad_words": "BYTES",
    "embedding_bias_words": "BYTES",
    "embedding_bias_weights": "FP32",
    "end_id": "INT32",
    "guided_decoding_guide_type": "BYTES",
    "guided_decoding_guide": "BYTES",
}
GUIDED = schema("tensorrt_llm", {**BARE_INPUTS, **OPTION_INPUTS}, BARE_OUTPUTS, guided_decoding=True)
UNGUIDED = schema("tensorrt_llm", {**BARE_INPUTS, **OPTION_INPUTS}, BARE_OUTPUTS)
GUIDED_TEXT, GUIDED_BLS = (
    schema(lane, {**TEXT_INPUTS, **TEXT_OPTION_INPUTS}, TEXT_OUTPUTS, guided_decoding=True)
    for lane in ("ensemble", "tensorrt_llm_bls")
)
OPTIONED = (GUIDED, GUIDED_TEXT, GUIDED_BLS)
BIAS = LogitBias({5: 1.5, 2: -100}, 8, ("he", "llo"))
EVERY_OPTION = {
    "logit_bias": Options(logit_bias=BIAS),
    "bad_words": Options(bad_words=("no",), bad_ids=((4,),)),
    "stop_token_ids": Options(stop_token_ids=(4,)),
    "ignore_eos": Options(ignore_eos=True),
    "skip_special_tokens": Options(skip_special_tokens=False),
    "min_p": Options(extras={"min_p": Extra(0.1, "there is no tensor for it")}),
}


@pytest.mark.parametrize("of", OPTIONED, ids=lambda of: of.lane)
@pytest.mark.parametrize(
    "guide", [Guide("json"), Guide("json_schema", "{}"), Guide("regex", "a+"), Guide("ebnf_grammar", "x")]
)
def test_a_guide_is_its_type_and_its_text(of: Schema, guide: Guide) -> None:
    asked = request(guide=guide)
    lane_of(of).check(asked)
    sent = lane_of(of).tensors(asked)
    assert sent["guided_decoding_guide_type"] == guide.kind
    assert sent.get("guided_decoding_guide", "") == guide.text


@pytest.mark.parametrize("of", [UNGUIDED, BARE, ENSEMBLE, BLS, LLMAPI], ids=lambda of: of.lane)
def test_a_guide_that_the_engine_would_ignore_is_refused(of: Schema) -> None:
    """Without a guided decoding backend TensorRT-LLM answers as if it had not been asked."""
    names = {"response_format": "guided_json"}
    for options, param in ((None, "response_format"), (Options(names=names), "guided_json")):
        with pytest.raises(UnsupportedFeatureError, match=of.lane) as caught:
            lane_of(of).check(request(guide=Guide("json"), options=options))
        assert caught.value.param == param
        assert param in str(caught.value)


def test_a_bias_is_a_vector_over_the_vocabulary_or_words() -> None:
    asked = request(options=Options(logit_bias=BIAS))
    assert lane_of(GUIDED).tensors(asked)["embedding_bias"] is BIAS
    for of in (GUIDED_TEXT, GUIDED_BLS):
        sent = lane_of(of).tensors(asked)
        assert (sent["embedding_bias_words"], sent["embedding_bias_weights"]) == (["he", "llo"], [1.5, -100])


def test_a_token_without_a_text_of_its_own_has_no_bias_on_text_lanes() -> None:
    asked = request(options=Options(logit_bias=LogitBias({5: 1.5}, 8, None)))
    lane_of(GUIDED).check(asked)
    with pytest.raises(UnsupportedFeatureError) as caught:
        lane_of(GUIDED_TEXT).check(asked)
    assert caught.value.param == "logit_bias"


def test_bad_words_are_ids_or_texts() -> None:
    asked = request(options=Options(bad_words=("no", " no"), bad_ids=((1, 2), (3,))))
    assert lane_of(GUIDED).tensors(asked)["bad_words_list"] == [1, 2, 3, 2, 3, -1]
    assert lane_of(GUIDED_TEXT).tensors(asked)["bad_words"] == ["no", " no"]


@pytest.mark.parametrize(
    ("of", "refused"),
    [
        (GUIDED, {"min_p"}),
        (GUIDED_TEXT, {"min_p", "stop_token_ids", "skip_special_tokens"}),
        (GUIDED_BLS, {"min_p", "stop_token_ids", "skip_special_tokens"}),
        (LLMAPI, EVERY_OPTION.keys()),
        (
            schema("tensorrt_llm", {"streaming": "BOOL"}, BARE_OUTPUTS),
            EVERY_OPTION.keys() - {"skip_special_tokens"},
        ),
    ],
    ids=["bare", "ensemble", "bls", "llmapi", "bare-with-nothing"],
)
def test_each_option_is_carried_or_refused_by_its_name(of: Schema, refused: set[str]) -> None:
    for name, options in EVERY_OPTION.items():
        asked = request(options=options)
        if name not in refused:
            lane_of(of).check(asked)
            continue
        with pytest.raises(UnsupportedFeatureError) as caught:
            lane_of(of).check(asked)
        assert caught.value.param == name
        assert f"`{name}` is not supported by the {of.lane} lane" in str(caught.value)


def test_who_may_go_without_bos_is_told_by_the_servers_tokenizer() -> None:
    asked = request(options=Options(add_special_tokens=False), prompt_bos="<s>")
    lane_of(GUIDED).check(asked)
    with pytest.raises(UnsupportedFeatureError) as caught:
        lane_of(GUIDED_TEXT).check(asked)
    assert caught.value.param == "add_special_tokens"
    plain = replace(GUIDED_TEXT, adds_special_tokens=False)
    lane_of(plain).check(asked)
    assert lane_of(plain).tensors(asked)["text_input"] == "Hello"
    assert tensors(plain, prompt_bos="<s>")["text_input"] == "<s>Hello"


@pytest.mark.parametrize("of", [ENSEMBLE, BLS, LLMAPI], ids=lambda of: of.lane)
def test_a_prompt_that_is_no_text_is_not_for_text_lanes(of: Schema) -> None:
    options = Options(names={"prompt": "truncate_prompt_tokens"})
    with pytest.raises(UnsupportedFeatureError) as caught:
        lane_of(of).check(request(prompt_text=None, options=options))
    assert caught.value.param == "truncate_prompt_tokens"


def test_the_likeliest_tokens_are_not_told() -> None:
    with pytest.raises(UnsupportedFeatureError, match="chosen tokens only") as caught:
        lane_of(BARE).check(request(log_probs=True, top_log_probs=2))
    assert caught.value.param == "top_logprobs"
