"""`sampling_parameters` of the vLLM backend: a request by the names of vLLM's SamplingParams, as JSON.

The backend hands the JSON's values to vLLM as they are: whatever is not a JSON value there cannot be said.
A guide is JSON text within it. Sources: `src/utils/vllm_backend_utils.py` of triton-inference-server/
vllm_backend, `vllm/sampling_params.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from inference.lanes.sampling import unsupported
from inference.request import Guide, InferenceRequest, Options, Sampling

EXTRAS = frozenset({"min_p", "allowed_token_ids"})
"""Fields that vLLM takes by the client's name."""
_COPIED = (
    "temperature",
    "top_k",
    "top_p",
    "min_tokens",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
)
_SEED_MASK = (1 << 63) - 1
"""vLLM takes -1 for no seed."""
_GUIDES = {"regex": "regex", "ebnf_grammar": "grammar"}


def check_options(lane: str, request: InferenceRequest) -> None:
    """Raise UnsupportedFeatureError, by the client's name, for what vLLM cannot be told."""
    options = request.options
    if options is None:
        return
    for name, extra in options.extras.items():
        if name not in EXTRAS or extra.value == []:
            raise unsupported(lane, name, request, extra.why)
    if options.logit_bias is not None:
        why = "its parameters are JSON, whose names cannot be token ids"
        raise unsupported(lane, "logit_bias", request, why)
    if not options.add_special_tokens:
        raise unsupported(lane, "add_special_tokens", request, "its server always adds them")


def stops_told(request: InferenceRequest) -> tuple[str, ...]:
    """The stop strings that vLLM looks for; else the gateway must.

    It is told to keep them in its text, so that the gateway knows which it was. It would keep the text of end
    tokens with them: none that could have any may end the answer then.
    """
    options = request.options
    if options is None:
        return request.stop
    if not options.skip_special_tokens or (options.stop_token_ids and not options.kept_stop):
        return ()
    return request.stop or options.kept_stop


def sampling_parameters(request: InferenceRequest) -> dict[str, Any]:
    """What `check_options` let through."""
    parameters = {"max_tokens": request.max_tokens, **_sampling(request.sampling)}
    if stops := stops_told(request):
        parameters |= {"stop": list(stops), "include_stop_str_in_output": True}
    if request.guide is not None:
        parameters["structured_outputs"] = msgspec.json.encode(_guide(request.guide)).decode()
    if request.options is not None:
        parameters.update(_options(request.options))
    return parameters


def _sampling(sampling: Sampling) -> Mapping[str, Any]:
    """Equal requests without a seed differ as they are."""
    parameters = {name: value for name in _COPIED if (value := getattr(sampling, name)) is not None}
    if sampling.top_p == 0:
        parameters |= {"top_p": 1.0, "temperature": 0.0}
    if sampling.seed is not None:
        parameters["seed"] = sampling.seed & _SEED_MASK
    if sampling.log_probs:
        parameters["logprobs"] = sampling.top_log_probs
    return parameters


def _guide(guide: Guide) -> Mapping[str, Any]:
    if guide.kind == "json":
        return {"json_object": True}
    if guide.kind == "json_schema":
        return {"json": msgspec.Raw(guide.text.encode())}
    return {_GUIDES[guide.kind]: guide.text}


def _options(options: Options) -> Iterator[tuple[str, Any]]:
    if options.bad_words:  # vLLM itself adds the form that follows a space
        yield "bad_words", list(dict.fromkeys(word.lstrip() for word in options.bad_words))
    if options.stop_token_ids:
        yield "stop_token_ids", list(options.stop_token_ids)
    if options.ignore_eos:
        yield "ignore_eos", True
    if not options.skip_special_tokens:
        yield "skip_special_tokens", False
    for name, extra in options.extras.items():
        yield name, extra.value
