"""Parsing: what is taken, what is refused with which field, and what is only recorded."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from gateway.api.errors import ApiError
from gateway.api.fields import FITS, Body, ChatBody, CompletionBody, Message, ServerFields, StreamOptions
from gateway.api.requests import ApiRequest, BodyLimits, parse_chat, parse_completion
from inference.request import Sampling

LIMITS = BodyLimits()
USER = {"role": "user", "content": "Hi"}


def chat(**fields: Any) -> ApiRequest:
    return parse_chat(json.dumps({"model": "m", "messages": [USER], **fields}).encode(), LIMITS)


def completion(**fields: Any) -> ApiRequest:
    return parse_completion(json.dumps({"model": "m", "prompt": "Hi", **fields}).encode(), LIMITS)


def refusal(parse: Any, **fields: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        parse(**fields).refuse_unserved()
    assert caught.value.status == 400
    assert caught.value.param is None or caught.value.param in str(caught.value)
    return caught.value


def test_a_chat_request_is_read_whole() -> None:
    sent = {
        "model": "chat:latency",
        "messages": [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "name": "eva", "content": "Hi"},
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
        "n": 2,
        "max_completion_tokens": 7,
        "temperature": 0,
        "top_p": 0.5,
        "top_k": 40,
        "min_tokens": 2,
        "seed": -5,
        "presence_penalty": 1,
        "frequency_penalty": -0.5,
        "repetition_penalty": 1.1,
        "stop": ["a", "b"],
        "logprobs": True,
        "service_tier": "flex",
        "user": "u1",
    }
    got = parse_chat(json.dumps(sent).encode(), LIMITS)
    assert got == ApiRequest(
        kind="chat",
        raw=sent,
        model="chat:latency",
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "name": "eva", "content": "Hi"},
        ],
        prompts=None,
        stream=True,
        include_usage=True,
        n=2,
        max_tokens=7,
        sampling=Sampling(0.0, 0.5, 40, 2, -5, 1.0, -0.5, 1.1, log_probs=True),
        stop=("a", "b"),
        logprobs=True,
        top_logprobs=None,
        echo=False,
        service_tier="flex",
        user="u1",
        unsupported=(),
        unknown=(),
    )


def test_null_is_the_default_of_every_field() -> None:
    every = {name: None for name in ChatBody.__struct_fields__ if name not in ("model", "messages")}
    got = chat(**every)
    got.refuse_unserved()
    assert (got.n, got.max_tokens, got.stream, got.sampling, got.stop) == (1, None, False, Sampling(), ())
    every = {name: None for name in CompletionBody.__struct_fields__ if name not in ("model", "prompt")}
    got = completion(**every)
    got.refuse_unserved()
    assert (got.n, got.max_tokens, got.stream, got.sampling, got.stop) == (1, 16, False, Sampling(), ())


def test_harmless_fields_are_taken() -> None:
    chat(
        metadata={"a": "b"},
        store=True,
        safety_identifier="x",
        prompt_cache_key="k",
        prompt_cache_retention="24h",
        parallel_tool_calls=False,
        verbosity="medium",
        reasoning_effort="none",
        response_format={"type": "text"},
        modalities=["text"],
        tools=[],
        tool_choice="auto",
        logit_bias={},
        top_logprobs=0,
    ).refuse_unserved()


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("model", 5, "invalid_type"),
        ("model", "", "invalid_value"),
        ("model", "m" * 257, "invalid_value"),
        ("stream", "true", "invalid_type"),
        ("stream", 1, "invalid_type"),
        ("n", 0, "invalid_value"),
        ("n", 129, "invalid_value"),
        ("n", 17, "invalid_value"),
        ("n", 3.0, "invalid_type"),
        ("n", True, "invalid_type"),
        ("n", 10**400, "invalid_value"),
        ("temperature", 2.01, "invalid_value"),
        ("temperature", -0.1, "invalid_value"),
        ("temperature", "1", "invalid_type"),
        ("temperature", 10**400, "invalid_value"),
        ("top_p", 1.5, "invalid_value"),
        ("top_k", -2, "invalid_value"),
        ("min_tokens", -1, "invalid_value"),
        ("seed", 2**63, "invalid_value"),
        ("seed", -(2**63) - 1, "invalid_value"),
        ("presence_penalty", 2.5, "invalid_value"),
        ("frequency_penalty", -2.5, "invalid_value"),
        ("repetition_penalty", 0, "invalid_value"),
        ("stop", ["a"] * 5, "invalid_value"),
        ("stop", "", "invalid_value"),
        ("stop", 5, "invalid_type"),
        ("logit_bias", {"1": 101}, "invalid_value"),
        ("logit_bias", {"the": 5}, "invalid_value"),
        ("min_p", 1.5, "invalid_value"),
        ("stop_token_ids", [-1], "invalid_value"),
        ("bad_words", [""], "invalid_value"),
        ("ignore_eos", 1, "invalid_type"),
        ("truncate_prompt_tokens", 0, "invalid_value"),
        ("guided_choice", [], "invalid_value"),
        ("guided_regex", "", "invalid_value"),
        ("guided_json", "{", "invalid_value"),
        ("service_tier", "gold", "invalid_value"),
        ("user", 5, "invalid_type"),
        ("stream_options", {"include_usage": True}, "invalid_value"),
        ("temprature", 1, "unknown_parameter"),
    ],
)
def test_a_wrong_value_is_refused_by_both_with_its_field(field: str, value: Any, code: str) -> None:
    for parse in (chat, completion):
        error = refusal(parse, **{field: value})
        assert ((error.param or "").partition("[")[0], error.code) == (field, code)


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": None}, "messages", "invalid_type"),
        ({"messages": ["a"]}, "messages[0]", "invalid_type"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"max_completion_tokens": -1}, "max_completion_tokens", "invalid_value"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens", "invalid_value"),
        ({"max_tokens": 5, "min_tokens": 6}, "min_tokens", "invalid_value"),
        ({"logprobs": 1}, "logprobs", "invalid_type"),
        ({"top_logprobs": 2}, "top_logprobs", "invalid_value"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs", "invalid_value"),
        ({"stop": ["a", ""]}, "stop[1]", "invalid_value"),
        ({"stop": ["a", 1]}, "stop[1]", "invalid_type"),
        (
            {"stream": True, "stream_options": {"include_usage": 1}},
            "stream_options.include_usage",
            "invalid_type",
        ),
        ({"metadata": {"a": 1}}, "metadata", "invalid_type"),
        ({"safety_identifier": "x" * 65}, "safety_identifier", "invalid_value"),
        ({"tools": [5]}, "tools[0]", "invalid_type"),
        ({"functions": [{}]}, "functions", "unsupported_parameter"),
        ({"function_call": {"name": "f"}}, "function_call", "unsupported_parameter"),
        ({"response_format": "text"}, "response_format", "invalid_type"),
    ],
)
def test_a_wrong_chat_field_is_refused_by_name(fields: dict[str, Any], param: str, code: str) -> None:
    error = refusal(chat, **fields)
    assert (error.param, error.code) == (param, code)


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"prompt": []}, "prompt", "invalid_value"),
        ({"prompt": ["a", 1]}, "prompt", "invalid_value"),
        ({"prompt": [[]]}, "prompt[0]", "invalid_value"),
        ({"prompt": [[1, -1]]}, "prompt[0]", "invalid_value"),
        ({"prompt": [2**31]}, "prompt", "invalid_value"),
        ({"prompt": [True]}, "prompt[0]", "invalid_type"),
        ({"prompt": [[1, "a"]]}, "prompt[0][1]", "invalid_type"),
        ({"prompt": {"text": "a"}}, "prompt", "invalid_type"),
        ({"prompt": ["a"] * 9, "n": 2}, "prompt", "invalid_value"),
        ({"max_tokens": -1}, "max_tokens", "invalid_value"),
        ({"min_tokens": 17}, "min_tokens", "invalid_value"),
        ({"logprobs": 6}, "logprobs", "invalid_value"),
        ({"logprobs": True}, "logprobs", "invalid_type"),
        ({"best_of": 21}, "best_of", "invalid_value"),
        ({"best_of": 17}, "best_of", "invalid_value"),
        ({"best_of": 2, "stream": True}, "best_of", "invalid_value"),
        ({"best_of": 2, "n": 3}, "best_of", "invalid_value"),
        ({"best_of": 9, "prompt": ["a", "b"]}, "prompt", "invalid_value"),
        ({"messages": [USER]}, "messages", "unknown_parameter"),
    ],
)
def test_a_wrong_completion_field_is_refused_by_name(fields: dict[str, Any], param: str, code: str) -> None:
    error = refusal(completion, **fields)
    assert (error.param, error.code) == (param, code)


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        ("a", ["a"]),
        ("", [""]),
        (None, [""]),
        (["a", ""], ["a", ""]),
        ([1, 2], [[1, 2]]),
        ([[1], [2, 3]], [[1], [2, 3]]),
    ],
)
def test_every_form_of_prompt_becomes_a_list(prompt: Any, prompts: Any) -> None:
    got = completion(prompt=prompt)
    assert (got.kind, got.prompts, got.messages) == ("completion", prompts, None)


def test_completion_logprobs_of_0_are_the_chosen_tokens() -> None:
    got = completion(logprobs=0)
    got.refuse_unserved()
    assert (got.logprobs, got.sampling.log_probs) == (True, True)
    assert not completion().logprobs


@pytest.mark.parametrize("missing", ["model", "messages"])
def test_a_missing_field_is_named_with_what_to_give(missing: str) -> None:
    body = {"model": "m", "messages": [USER]}
    del body[missing]
    with pytest.raises(ApiError) as caught:
        parse_chat(json.dumps(body).encode(), LIMITS)
    assert (caught.value.param, caught.value.code) == (missing, "missing_required_parameter")
    assert FITS[missing] in str(caught.value)


def test_max_completion_tokens_and_max_tokens_may_agree() -> None:
    assert chat(max_tokens=5).max_tokens == 5
    assert chat(max_tokens=5, max_completion_tokens=5).max_tokens == 5


def test_top_k_of_minus_1_or_0_is_off() -> None:
    assert [chat(top_k=k).sampling.top_k for k in (-1, 0, 1)] == [None, None, 1]


def test_limits_are_the_configured_ones() -> None:
    body = json.dumps({"model": "m", "messages": [USER], "n": 4}).encode()
    assert parse_chat(body, BodyLimits(max_choices=4)).n == 4
    with pytest.raises(ApiError) as caught:
        parse_chat(body, BodyLimits(max_choices=3))
    assert caught.value.param == "n"


def test_what_triton_lanes_lack_is_left_for_an_upstream() -> None:
    """Parsing alone refuses neither unsupported nor unknown fields, and keeps them."""
    custom = {"type": "custom", "custom": {"name": "x"}}
    got = chat(
        tools=[custom],
        tool_choice="required",
        new_at_openai=0.1,
        stream=True,
        stream_options={"continuous_usage_stats": True},
    )
    assert [item.param for item in got.unsupported] == ["tools[0]"]
    assert got.unknown == ("new_at_openai", "stream_options.continuous_usage_stats")
    assert got.raw["tools"] == [custom]


def test_a_misspelt_field_is_answered_with_the_nearest() -> None:
    assert "Did you mean `temperature`?" in str(refusal(chat, temprature=1))
    assert "Did you mean" not in str(refusal(chat, zzzz=1))
    assert len(str(refusal(chat, **{"x" * 5000: 1}))) < 200


def test_every_field_says_what_fits() -> None:
    """A mistake anywhere can be answered with a remedy."""
    top = {*ChatBody.__struct_fields__, *CompletionBody.__struct_fields__, *Body.__struct_fields__}
    top |= {*ServerFields.__struct_fields__}
    nested = {f"messages[].{name}" for name in Message.__struct_fields__}
    options = {f"stream_options.{name}" for name in StreamOptions.__struct_fields__}
    assert not (top | nested | options) - FITS.keys()
    assert msgspec.structs.fields(ChatBody)
