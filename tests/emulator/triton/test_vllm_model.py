"""The vLLM backend's model in a real Triton: deltas, counts, log probabilities, and its habits."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from emulator.engine.tokenizer import EngineTokenizer
from tests.emulator.triton.server import Event, Server

PROMPT = "the engine house"


def body(stream: bool = True, **more: Any) -> Event:
    flags = ("finish_reason", "num_input_tokens", "num_output_tokens", "logprobs", "cumulative_logprob")
    parameters = {"max_tokens": 12, "min_tokens": 12, "seed": 3, **more}
    return {
        "text_input": PROMPT,
        "stream": stream,
        "exclude_input_in_output": True,
        "sampling_parameters": json.dumps(parameters),
        **{f"return_{flag}": True for flag in flags},
    }


async def test_each_response_brings_the_newest_text_and_its_count(server: Server, model_dir: Path) -> None:
    _, seen = await server.stream("vllm", body())
    _, whole = await server.generate("vllm", body(stream=False))
    assert "".join(event["text_output"] for event in seen) == whole["text_output"]
    assert [event["finish_reason"] for event in seen] == ["None"] * 11 + ["length"]
    assert [event["num_output_tokens"] for event in seen] == [1] * 12
    assert (whole["num_output_tokens"], whole["finish_reason"]) == (12, "length")
    assert whole["num_input_tokens"] == len(EngineTokenizer(model_dir).encode(PROMPT))


async def test_log_probabilities_are_one_object_per_token_with_the_chosen_one_first(server: Server) -> None:
    _, whole = await server.generate("vllm", body(stream=False, logprobs=2))
    entries = json.loads(whole["logprobs"])
    assert len(entries) == 12
    assert all(2 <= len(entry) <= 3 for entry in entries)
    first = next(iter(entries[0].values()))
    assert set(first) == {"logprob", "rank", "decoded_token"}
    chosen = sum(next(iter(entry.values()))["logprob"] for entry in entries)
    assert chosen == pytest.approx(whole["cumulative_logprob"], abs=1e-3)
    _, without = await server.generate("vllm", body(stream=False))
    assert without["logprobs"] == "null"


async def test_a_stop_string_is_left_out_of_the_text(server: Server) -> None:
    _, whole = await server.generate("vllm", body(stream=False))
    stop = whole["text_output"][4:7]
    for stream in (True, False):
        _, seen = await server.stream("vllm", body(stream=stream, stop=[stop]))
        text = "".join(event["text_output"] for event in seen)
        assert text == whole["text_output"][: whole["text_output"].index(stop)]
        assert seen[-1]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"top_p": 7}, "Error generating stream: 'NoneType' object has no attribute 'lora_name'"),
        ({"nonsense": 1}, "Error generating stream: 'NoneType' object has no attribute 'lora_name'"),
        ({"lora_name": "mine"}, "LoRA feature is not enabled."),
    ],
)
async def test_what_it_cannot_do_it_says_in_its_own_words(
    server: Server, more: dict[str, Any], said: str
) -> None:
    _, seen = await server.stream("vllm", body(**more))
    assert seen[0]["error"] == said


@pytest.mark.parametrize(
    ("guide", "wanted"),
    [
        ({"regex": "[0-9]{3}-[a-f]{2}"}, r"\d{3}-[a-f]{2}"),
        ({"grammar": 'root ::= ("tea" | "coal") "!"'}, "(tea|coal)!"),
        ({"json": {"enum": [7]}}, "7"),
        ({"json_object": True}, r"(?s)\{.*"),
    ],
    ids=lambda guide: next(iter(guide)) if isinstance(guide, dict) else None,
)
async def test_a_guide_is_json_text_within_the_parameters(server: Server, guide: Event, wanted: str) -> None:
    asked = body(False, max_tokens=60, min_tokens=0, structured_outputs=json.dumps(guide))
    _, whole = await server.generate("vllm", asked)
    assert re.fullmatch(wanted, whole["text_output"])
    _, refused = await server.stream("vllm", body(structured_outputs=guide))
    assert "lora_name" in refused[0]["error"]  # an object, not its text


@pytest.mark.parametrize(
    ("guide", "said"),
    [
        ({"regex": "(("}, "Failed to transform regex into a grammar"),
        ({"grammar": "no"}, "Invalid grammar specification."),
    ],
)
async def test_a_guide_that_cannot_be_read_is_refused(server: Server, guide: Event, said: str) -> None:
    _, seen = await server.stream("vllm", body(structured_outputs=json.dumps(guide)))
    assert seen[0]["error"].startswith(f"Error generating stream: {said}")


async def test_a_token_that_ends_the_answer_is_hidden_unless_stops_are_kept(
    server: Server, model_dir: Path
) -> None:
    tokenizer = EngineTokenizer(model_dir)
    _, plain = await server.generate("vllm", body(False, min_tokens=0, logprobs=0))
    tokens = [int(next(iter(entry))) for entry in json.loads(plain["logprobs"])]
    until = tokens[: tokens.index(tokens[3])]
    for kept in (False, True):
        asked = body(False, min_tokens=0, stop_token_ids=[tokens[3]], include_stop_str_in_output=kept)
        _, whole = await server.generate("vllm", asked)
        shown = [*until, tokens[3]] if kept else until
        assert (whole["text_output"], whole["finish_reason"]) == (tokenizer.decode(shown), "stop")
        assert whole["num_output_tokens"] == len(until) + 1


async def test_only_allowed_tokens_are_chosen(server: Server, model_dir: Path) -> None:
    allowed = EngineTokenizer(model_dir).encode("engine", add_special_tokens=False)[:2]
    _, whole = await server.generate("vllm", body(False, allowed_token_ids=allowed, logprobs=0))
    assert {int(next(iter(entry))) for entry in json.loads(whole["logprobs"])} <= set(allowed)
    for wrong in ([], [10**6]):
        _, seen = await server.stream("vllm", body(allowed_token_ids=wrong))
        assert "allowed_token_ids" in seen[0]["error"]


async def test_numbers_may_be_texts(server: Server) -> None:
    _, plain = await server.generate("vllm", body(stream=False))
    _, quoted = await server.generate("vllm", body(stream=False, max_tokens="12", seed="3"))
    assert quoted["text_output"] == plain["text_output"]


async def test_an_embedding_model_embeds_and_does_nothing_else(server: Server, model_dir: Path) -> None:
    asked = {"text_input": "", "return_num_input_tokens": True}
    as_text = {**asked, "embedding_request": json.dumps({"input": PROMPT})}
    ids = EngineTokenizer(model_dir).encode(PROMPT)
    as_ids = {**asked, "embedding_request": json.dumps({"input": ids})}
    _, one = await server.generate("vllm_embed", as_text)
    _, other = await server.generate("vllm_embed", as_ids)
    assert json.loads(one["text_output"]) == pytest.approx(json.loads(other["text_output"]), abs=1e-5)
    assert one["num_input_tokens"] == len(ids)
    _, refused = await server.stream("vllm_embed", body())
    assert "does not support 'generate' request" in refused[0]["error"]
