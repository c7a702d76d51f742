"""Parameters: every field that a client may send, and what becomes of it. `docs/parameters.md` is made of it.

A field is served (by the gateway, or by the lanes whose schema has a tensor for it), has no effect on the
answer, or is left to lanes that carry it by name (`openai-http` takes all of it); then `neutral` are the
values that ask for nothing. Which lane serves what is not written here: the lanes' own checks tell.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Parameter(NamedTuple):
    """One field."""

    example: Any
    """A value that asks for something."""
    note: str = ""
    neutral: tuple[Any, ...] | None = None
    """Not None: no Triton engine has a tensor for other values."""
    no_effect: bool = False
    """Taken, and of no effect on the answer."""
    beside: Mapping[str, Any] = {}
    """Fields that it is not valid without."""


_TEXT_ONLY = "only text goes in and comes out"
_BEAMS = "beam search is not served"
_NO_TENSOR = "it has no tensor for it"
_TOOLS = "needs a model with a `tool_parser`; a call that must be made, an engine that takes guides"
_GUIDE = "needs an engine with `guided_decoding_backend`"

PARAMETERS: Mapping[str, Parameter] = {
    "model": Parameter("house-chat", "alias and `:profile` are understood"),
    "messages": Parameter([{"role": "user", "content": "Hi"}], "text; several parts are joined by newlines"),
    "prompt": Parameter("Hi", "text or token ids, one or several; token ids need the bare lane"),
    "stream": Parameter(True),
    "stream_options": Parameter(
        {"include_usage": True}, "`include_obfuscation: true` is refused", beside={"stream": True}
    ),
    "n": Parameter(2, "up to `limits.max_choices`; every choice is a request of its own at the engine"),
    "best_of": Parameter(3, "the `n` of the highest log probability per token; not streamed"),
    "max_tokens": Parameter(5, "for completions 16 if not given"),
    "max_completion_tokens": Parameter(5, "the newer name of `max_tokens`"),
    "min_tokens": Parameter(2),
    "temperature": Parameter(0.5, "1 if not given; 0 takes the likeliest token"),
    "top_p": Parameter(0.5, "0 takes the likeliest token"),
    "top_k": Parameter(5, "-1 and 0: all tokens"),
    "min_p": Parameter(0.1, "no tensor: `runtime_top_p_min` means something else", (None, 0)),
    "seed": Parameter(1, "choice number i samples by `seed + i`; without one every request samples anew"),
    "presence_penalty": Parameter(0.5),
    "frequency_penalty": Parameter(0.5),
    "repetition_penalty": Parameter(1.1),
    "logit_bias": Parameter(
        {"5": 1},
        "text lanes: only tokens whose text becomes that one token again; vLLM's JSON cannot name tokens",
    ),
    "bad_words": Parameter(["no"], "each word also with a space before it"),
    "allowed_token_ids": Parameter([5], "no tensor: a bias would not be the same", (None,)),
    "stop": Parameter(["."], "up to 4, cut off; found across any token border"),
    "stop_token_ids": Parameter([5], "not part of the answer, like the model's own end tokens"),
    "include_stop_str_in_output": Parameter(
        True, "the gateway looks for the stop strings and cancels at the engine", beside={"stop": ["."]}
    ),
    "ignore_eos": Parameter(True),
    "logprobs": Parameter(
        True, "of the chosen tokens; completions: 0 for those, N adds the N likeliest, as `top_logprobs`"
    ),
    "top_logprobs": Parameter(
        2, "TensorRT-LLM tells those of the chosen tokens only", beside={"logprobs": True}
    ),
    "prompt_logprobs": Parameter(1, "no engine tells those of the prompt", (None,)),
    "echo": Parameter(True, "not with `logprobs`, which would need those of the prompt"),
    "suffix": Parameter("end", "nothing is filled in between two texts", (None, "")),
    "response_format": Parameter({"type": "json_object"}, f"{_GUIDE}; `strict` or not, the guide holds"),
    "guided_json": Parameter({"type": "object"}, _GUIDE),
    "guided_regex": Parameter("[a-z]+", _GUIDE),
    "guided_choice": Parameter(["a", "b"], f"{_GUIDE}; sent as a grammar"),
    "guided_grammar": Parameter('root ::= "a"', _GUIDE),
    "structured_outputs": Parameter({"choice": ["a", "b"]}, _GUIDE),
    "regex": Parameter("[a-z]+", _GUIDE),
    "ebnf": Parameter('root ::= "a"', _GUIDE),
    "tools": Parameter([{"type": "function", "function": {"name": "f"}}], _TOOLS),
    "tool_choice": Parameter("required", beside={"tools": [{"type": "function", "function": {"name": "f"}}]}),
    "parallel_tool_calls": Parameter(
        False,
        "false: the answer ends with its first call",
        beside={"tools": [{"type": "function", "function": {"name": "f"}}]},
    ),
    "functions": Parameter([{"name": "f"}]),
    "function_call": Parameter({"name": "f"}, beside={"functions": [{"name": "f"}]}),
    "reasoning_effort": Parameter("high", "where the model's chat template reads it"),
    "chat_template_kwargs": Parameter(
        {"enable_thinking": False}, "names that the model's chat template reads"
    ),
    "include_reasoning": Parameter(False, "false leaves `reasoning_content` out"),
    "verbosity": Parameter("low", "no chat template knows it", (None, "medium")),
    "modalities": Parameter(["text", "audio"], _TEXT_ONLY, (None, ["text"])),
    "audio": Parameter({"voice": "alloy", "format": "wav"}, _TEXT_ONLY, (None,)),
    "prediction": Parameter(
        {"type": "content", "content": "Hi"}, "nothing is taken over from a draft", (None,)
    ),
    "web_search_options": Parameter({}, "nothing is searched here", (None,)),
    "moderation": Parameter({"model": "m"}, "nothing is moderated here", (None,)),
    "skip_special_tokens": Parameter(False, "TensorRT-LLM's text models decide for themselves"),
    "spaces_between_special_tokens": Parameter(
        False, "concerns slow tokenizers only, of which there are none here", no_effect=True
    ),
    "add_special_tokens": Parameter(
        False, "completions: false is a prompt without BOS; chat: the template puts them in, true is refused"
    ),
    "truncate_prompt_tokens": Parameter(
        1,
        "the last N tokens, BOS included; -1: what fits beside the answer; text lanes: unless that cuts",
    ),
    "length_penalty": Parameter(1.2, _BEAMS, (None, 1.0)),
    "early_stopping": Parameter(True, _BEAMS, (None, False)),
    "use_beam_search": Parameter(True, _BEAMS, (None, False)),
    "detokenize": Parameter(False, "an answer is text", (None, True)),
    "return_token_ids": Parameter(True, "an answer is text", (None, False)),
    "return_tokens_as_token_ids": Parameter(True, "an answer is text", (None, False)),
    "priority": Parameter(1, "the order is the tenant's and the profile's", (None, 0)),
    "cache_salt": Parameter("s", "its KV cache is shared by all who may use the model", (None,)),
    "kv_transfer_params": Parameter({}, "prefill and decode are one here", (None,)),
    "disaggregated_params": Parameter({}, "prefill and decode are one here", (None,)),
    "service_tier": Parameter("flex", "chooses the profile; chat echoes the tier that served"),
    "user": Parameter("u", no_effect=True),
    "safety_identifier": Parameter("u", no_effect=True),
    "store": Parameter(True, "nothing is stored", no_effect=True),
    "metadata": Parameter({"a": "b"}, "belongs to `store`", no_effect=True),
    "prompt_cache_key": Parameter("k", "names the session of the policy `session-affinity`", no_effect=True),
    "prompt_cache_options": Parameter({}, no_effect=True),
    "prompt_cache_retention": Parameter("24h", no_effect=True),
}

UNCARRIED: Mapping[str, tuple[tuple[Any, ...], str]] = {
    name: (parameter.neutral, parameter.note or _NO_TENSOR)
    for name, parameter in PARAMETERS.items()
    if parameter.neutral is not None
}
"""Values that ask for nothing, and why others are refused where a lane does not know the field by name."""
