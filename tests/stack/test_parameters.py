"""Parameters over every lane of the real stack: carried exactly, or refused by name with lane and reason."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from inference.tokenizer import ModelTokenizer
from tests.openai_schema import validate
from tests.stack.stack import ROOT, Stack, events_of

LANES = {
    "house-chat": "tensorrt_llm",
    "yard-chat": "ensemble",
    "kiosk-chat": "tensorrt_llm_bls",
    "depot-chat": "llmapi",
    "siding-chat": "vllm",
}
WITH_TENSORS = ["house-chat", "yard-chat", "kiosk-chat"]
WITH_PARAMETERS = [*WITH_TENSORS, "siding-chat"]
ASK = [{"role": "user", "content": "What is the capital of France?"}]
TOKENIZER = ModelTokenizer.load(ROOT / "emulator" / "models" / "house-chat")
DEPOT_TOKENIZER = ModelTokenizer.load(ROOT / "emulator" / "models" / "depot-chat")
NUMBERED = {
    "type": "object",
    "properties": {"n": {"enum": [1, 2]}},
    "required": ["n"],
    "additionalProperties": False,
}


class Client:
    """Asks as a customer does, and reads what comes."""

    def __init__(self, http: httpx2.Client) -> None:
        self._http = http

    def chat(self, model: str, **fields: Any) -> dict[str, Any]:
        return self._ok("/v1/chat/completions", {"model": model, "messages": ASK, "temperature": 0, **fields})

    def complete(self, model: str, **fields: Any) -> dict[str, Any]:
        return self._ok(
            "/v1/completions", {"model": model, "prompt": "The engine", "temperature": 0, **fields}
        )

    def said(self, model: str, **fields: Any) -> tuple[str, str, int]:
        """Text, reason and completion tokens of a chat; streamed and whole they must be the same."""
        whole = self.chat(model, **fields)
        choice = whole["choices"][0]
        found = choice["message"]["content"], choice["finish_reason"], whole["usage"]["completion_tokens"]
        body = {"model": model, "messages": ASK, "temperature": 0, **fields}
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        events = events_of(self._http.post("/v1/chat/completions", json=body).content)
        text = "".join(e["choices"][0]["delta"].get("content") or "" for e in events if e["choices"])
        reason = [e["choices"][0]["finish_reason"] for e in events if e["choices"]][-1]
        assert (text, reason, events[-1]["usage"]["completion_tokens"]) == found
        return found

    def refusal(self, path: str, body: dict[str, Any]) -> tuple[str, str, str]:
        """Param, code and message of a 400."""
        answer = self._http.post(path, json=body)
        assert answer.status_code == 400, answer.text
        validate("ErrorResponse", answer.json())
        error = answer.json()["error"]
        return error["param"], error["code"], error["message"]

    def refused(self, model: str, **fields: Any) -> str:
        """The field that a chat was refused for; its message names the lane."""
        param, code, message = self.refusal(
            "/v1/chat/completions", {"model": model, "messages": ASK, "max_tokens": 4, **fields}
        )
        assert code == "unsupported_parameter"
        assert f"`{param}`" in message
        assert LANES[model] in message
        return param

    def _ok(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = self._http.post(path, json=body)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


@pytest.fixture
def client(stack: Stack) -> Iterator[Client]:
    with httpx2.Client(base_url=stack.origin, headers=stack.headers, timeout=60) as http:
        yield Client(http)


def a_word() -> tuple[int, str]:
    """A token whose text becomes just that token, so that every lane can be told of it."""
    for token in range(60, TOKENIZER.vocab_size):
        word = TOKENIZER.word_of(token)
        if word is not None and word.isalpha() and len(word) > 2:
            return token, word
    raise AssertionError("the vocabulary has no such token")


@pytest.mark.parametrize("model", WITH_TENSORS)
def test_a_bias_of_100_is_an_order(client: Client, model: str) -> None:
    token, word = a_word()
    assert client.said(model, logit_bias={str(token): 100}, max_tokens=3) == (3 * word, "length", 3)


@pytest.mark.parametrize("model", WITH_TENSORS)
def test_a_bias_of_minus_100_is_a_ban(client: Client, model: str) -> None:
    text, _, _ = client.said(model, max_tokens=1)
    token = TOKENIZER.encode(text, add_special_tokens=False)[0]
    assert TOKENIZER.word_of(token) is not None
    assert client.said(model, logit_bias={str(token): -100}, max_tokens=1)[0] != text


def test_a_bias_beyond_the_vocabulary_is_refused(client: Client) -> None:
    body = {"model": "house-chat", "messages": ASK, "logit_bias": {"9999999": 1}}
    param, code, message = client.refusal("/v1/chat/completions", body)
    assert (param, code) == ("logit_bias", "invalid_value")
    assert str(TOKENIZER.vocab_size - 1) in message


@pytest.mark.parametrize("model", WITH_PARAMETERS)
def test_bad_words_are_not_said(client: Client, model: str) -> None:
    word = next(word for word in client.said(model)[0].split() if word.isalpha() and len(word) > 3)
    assert word not in client.said(model, bad_words=[word], max_tokens=24)[0]


@pytest.mark.parametrize("model", WITH_PARAMETERS)
def test_an_answer_may_go_on_after_its_end(client: Client, model: str) -> None:
    assert client.said(model)[1] == "stop"
    assert client.said(model, ignore_eos=True, max_tokens=60)[1:] == ("length", 60)


@pytest.mark.parametrize("stop", [[], ["never said"]])
@pytest.mark.parametrize(
    ("model", "tokenizer"), [("house-chat", TOKENIZER), ("siding-chat", DEPOT_TOKENIZER)]
)
def test_a_token_may_end_the_answer(
    client: Client, model: str, tokenizer: ModelTokenizer, stop: list[str]
) -> None:
    plain = client.said(model)[0]
    ids = tokenizer.encode(plain, add_special_tokens=False)
    text, reason, tokens = client.said(model, stop_token_ids=[ids[3]], stop=stop)
    assert (reason, text) == ("stop", tokenizer.decode(ids[: ids.index(ids[3])]))
    assert tokens == ids.index(ids[3])


def test_vllm_takes_what_no_tensor_carries(client: Client) -> None:
    ids = DEPOT_TOKENIZER.encode(client.said("siding-chat")[0], add_special_tokens=False)
    only = client.said("siding-chat", allowed_token_ids=ids[:1], max_tokens=3)
    assert only == (DEPOT_TOKENIZER.decode(3 * ids[:1]), "length", 3)
    greedy = client.said("siding-chat", max_tokens=12)
    assert client.said("siding-chat", temperature=1.9, min_p=1, max_tokens=12) == greedy
    assert client.said("siding-chat", skip_special_tokens=False) == client.said("siding-chat")


def test_vllm_keeps_a_guide_of_every_kind(client: Client) -> None:
    for fields in (
        {"guided_regex": "[a-c]{4}"},
        {"guided_choice": ["abab", "cccc"]},
        {"guided_grammar": 'root ::= "ab" "ca"'},
    ):
        text, reason, _ = client.said("siding-chat", max_tokens=20, **fields)
        assert (reason, len(text), set(text) <= set("abc")) == ("stop", 4, True)
    text, _, _ = client.said("siding-chat", max_tokens=200, guided_json={"enum": [7]})
    assert json.loads(text) == 7


def test_a_guide_that_vllm_cannot_read_is_the_clients_mistake(client: Client) -> None:
    body = {"model": "siding-chat", "messages": ASK, "guided_regex": "(("}
    answer = client.refusal("/v1/chat/completions", body)
    assert "Traceback" not in answer[2]


@pytest.mark.parametrize("model", LANES)
def test_a_stop_string_may_stay(client: Client, model: str) -> None:
    plain, _, tokens = client.said(model)
    stop = plain[4:7]
    cut = client.said(model, stop=[stop])
    kept = client.said(model, stop=[stop], include_stop_str_in_output=True)
    assert cut[:2] == (plain[: plain.index(stop)], "stop")
    assert kept[:2] == (cut[0] + stop, "stop")
    assert 0 < kept[2] == cut[2] < tokens


@pytest.mark.parametrize("model", LANES)
@pytest.mark.parametrize(
    "fields",
    [
        {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": NUMBERED}}},
        {"guided_json": NUMBERED},
        {"structured_outputs": {"json": NUMBERED}},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_a_guide_is_kept_or_refused(client: Client, model: str, fields: dict[str, Any]) -> None:
    """Never ignored: who answers, answers in that form."""
    body = {"model": model, "messages": ASK, "max_tokens": 200, "temperature": 0, **fields}
    try:
        param, code, message = client.refusal("/v1/chat/completions", body)
    except AssertionError:
        text, reason, _ = client.said(model, max_tokens=60, **fields)
        assert reason == "stop"
        assert json.loads(text) in ({"n": 1}, {"n": 2})
    else:
        assert (param, code) == (next(iter(fields)), "unsupported_parameter")
        assert LANES[model] in message


@pytest.mark.parametrize("model", LANES)
@pytest.mark.parametrize(
    "fields",
    [
        {"cache_salt": "s"},
        {"priority": 3},
        {"use_beam_search": True},
        {"prompt_logprobs": 0},
        {"kv_transfer_params": {}},
        {"modalities": ["text", "audio"]},
        {"verbosity": "low"},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_what_no_triton_lane_has_is_refused_by_name(
    client: Client, model: str, fields: dict[str, Any]
) -> None:
    assert client.refused(model, **fields) == next(iter(fields))


@pytest.mark.parametrize("model", ["house-chat", "yard-chat", "kiosk-chat", "depot-chat"])
def test_min_p_has_no_tensor(client: Client, model: str) -> None:
    assert client.refused(model, min_p=0.1) == "min_p"


@pytest.mark.parametrize("fields", [{"logit_bias": {"60": 1}}, {"truncate_prompt_tokens": 3}])
def test_what_vllm_cannot_be_told_is_refused_by_name(client: Client, fields: dict[str, Any]) -> None:
    assert client.refused("siding-chat", **fields) == next(iter(fields))


@pytest.mark.parametrize("model", ["yard-chat", "kiosk-chat", "depot-chat"])
@pytest.mark.parametrize(
    "fields",
    [{"stop_token_ids": [5]}, {"skip_special_tokens": False}, {"truncate_prompt_tokens": 3}],
    ids=lambda fields: next(iter(fields)),
)
def test_what_text_lanes_lack_is_refused_by_name(client: Client, model: str, fields: dict[str, Any]) -> None:
    assert client.refused(model, **fields) == next(iter(fields))


@pytest.mark.parametrize(
    "fields",
    [{"logit_bias": {"60": 1}}, {"bad_words": ["a"]}, {"ignore_eos": True}, {"min_tokens": 2}],
    ids=lambda fields: next(iter(fields)),
)
def test_what_llmapi_lacks_is_refused_by_name(client: Client, fields: dict[str, Any]) -> None:
    assert client.refused("depot-chat", **fields) == next(iter(fields))


def test_the_likeliest_tokens_are_refused_by_either_name(client: Client) -> None:
    assert client.refused("house-chat", logprobs=True, top_logprobs=1) == "top_logprobs"
    body = {"model": "house-chat", "prompt": "The", "logprobs": 1}
    assert client.refusal("/v1/completions", body)[0] == "logprobs"
    chosen = client.complete("house-chat", logprobs=0, max_tokens=4)["choices"][0]["logprobs"]
    assert len(chosen["tokens"]) == len(chosen["token_logprobs"]) == 4


@pytest.mark.parametrize("model", LANES)
def test_echo_is_the_prompt_and_the_answer(client: Client, stack: Stack, model: str) -> None:
    """Several prompts, several choices, streamed and not."""
    prompts = ["The engine", "A  train 🚂"]
    plain = client.complete(model, prompt=prompts, n=2, max_tokens=5)
    echoed = client.complete(model, prompt=prompts, n=2, max_tokens=5, echo=True)
    texts = [choice["text"] for choice in echoed["choices"]]
    assert texts == [prompts[i // 2] + choice["text"] for i, choice in enumerate(plain["choices"])]
    assert echoed["usage"]["completion_tokens"] == plain["usage"]["completion_tokens"]
    streamed = ["", "", "", ""]
    stream = stack.client().completions.create(
        model=model, prompt=prompts, n=2, max_tokens=5, echo=True, temperature=0, stream=True
    )
    for chunk in stream:
        streamed[chunk.choices[0].index] += chunk.choices[0].text
    assert streamed == texts


def test_echo_with_log_probabilities_is_refused(client: Client) -> None:
    body = {"model": "house-chat", "prompt": "The", "echo": True, "logprobs": 0}
    param, code, message = client.refusal("/v1/completions", body)
    assert (param, code) == ("echo", "unsupported_parameter")
    assert "of the prompt" in message


def test_the_best_are_those_of_the_highest_log_probability_per_token(client: Client) -> None:
    """Choice number i samples by seed + i, so that all candidates can be seen as well."""
    asked = {"temperature": 1.5, "seed": 11, "max_tokens": 8, "prompt": ["The engine", "A train"]}
    everyone = client.complete("house-chat", n=4, logprobs=0, **asked)["choices"]

    def mean(choice: dict[str, Any]) -> float:
        values = choice["logprobs"]["token_logprobs"]
        return float(sum(values) / len(values)) if values else 0.0

    ranked = [
        [choice["text"] for choice in sorted(everyone[first : first + 4], key=mean, reverse=True)]
        for first in (0, 4)
    ]
    best = client.complete("house-chat", n=2, best_of=4, **asked)
    assert [choice["text"] for choice in best["choices"]] == [*ranked[0][:2], *ranked[1][:2]]
    assert [choice["index"] for choice in best["choices"]] == [0, 1, 2, 3]
    assert all(choice["logprobs"] is None for choice in best["choices"])
    made = client.complete("house-chat", n=4, **asked)["usage"]
    assert best["usage"] == made | {"prompt_tokens_details": best["usage"]["prompt_tokens_details"]}


def test_best_of_needs_log_probabilities(client: Client) -> None:
    for model in ("yard-chat", "depot-chat"):
        body = {"model": model, "prompt": "The", "best_of": 2}
        param, code, message = client.refusal("/v1/completions", body)
        assert (param, code) == ("best_of", "unsupported_parameter")
        assert LANES[model] in message


def test_a_prompt_may_be_cut_from_its_front(client: Client) -> None:
    long = "One two three four five six seven eight nine ten"
    ids = TOKENIZER.encode(long)
    cut = client.complete("house-chat", prompt=long, truncate_prompt_tokens=4, max_tokens=4)
    kept = [ids[0], *ids[-3:]] if ids[0] == TOKENIZER.bos_id else ids[-4:]
    same = client.complete("house-chat", prompt=kept, max_tokens=4)
    assert cut["usage"]["prompt_tokens"] == 4
    assert cut["choices"][0]["text"] == same["choices"][0]["text"]
    fits = client.complete("house-chat", prompt="word " * 5000, truncate_prompt_tokens=-1, max_tokens=4)
    assert fits["usage"]["total_tokens"] == 2048
    for model in ("yard-chat", "depot-chat"):
        assert client.complete(model, truncate_prompt_tokens=100, max_tokens=4)["choices"][0]["text"]


@pytest.mark.parametrize("model", LANES)
def test_the_context_is_checked_before_anything_is_queued(client: Client, model: str) -> None:
    for fields, param in (
        ({"messages": [{"role": "user", "content": "word " * 3000}]}, "messages"),
        ({"messages": ASK, "max_tokens": 2048}, "messages"),
    ):
        found = client.refusal("/v1/chat/completions", {"model": model, **fields})
        assert found[:2] == (param, "context_length_exceeded")
    body = {"model": model, "prompt": "The", "max_tokens": 2048}
    assert client.refusal("/v1/completions", body)[:2] == ("prompt", "context_length_exceeded")


@pytest.mark.parametrize("model", LANES)
def test_parts_user_and_tier_are_the_same_on_every_lane(client: Client, model: str) -> None:
    plain = client.chat(model, max_tokens=12)
    words = [{"type": "text", "text": "What is the capital of France?"}]
    parts = client.chat(
        model,
        messages=[{"role": "user", "content": words}],
        max_tokens=12,
        user="u",
        metadata={"a": "b"},
        store=True,
        service_tier="auto",
    )
    assert parts["choices"] == plain["choices"]
    assert parts["service_tier"]
    assert "service_tier" not in plain
    assert parts["usage"]["prompt_tokens"] == plain["usage"]["prompt_tokens"]
