"""Lanes: which kinds of model server can serve a request. Pure."""

from __future__ import annotations

from gateway.api.errors import bad_request
from gateway.api.requests import ApiRequest
from gateway.api.tools import no_tool_parser
from model_registry.entities import Model
from model_registry.snapshot import Snapshot

TRITON_LANES = frozenset({"tensorrt_llm", "ensemble", "tensorrt_llm_bls", "llmapi", "vllm"})
_NO_LANES: frozenset[str] = frozenset()
_OPENAI_LANES = frozenset({"openai-http"})
_BARE_LANE = frozenset({"tensorrt_llm"})
_ID_LANES = _BARE_LANE | _OPENAI_LANES


def lanes_for(snapshot: Snapshot, model: Model, api: ApiRequest) -> frozenset[str] | None:
    """The lanes that can serve this request. Raises ApiError 400 for what none of the model's can."""
    present = snapshot.lanes.get(model.name, _NO_LANES)
    if present <= _OPENAI_LANES and (present or model.tokenizer is None):
        return None if model.tokenizer is not None and _crosses(snapshot, model, api) else _OPENAI_LANES
    no_parser = api.tools_at is not None and model.tool_parser is None
    unserved = api.unsupported or api.unknown or no_parser
    if (unserved or api.template_names) and present & _OPENAI_LANES:
        return _OPENAI_LANES
    if unserved:
        api.refuse_unserved()
        raise no_tool_parser(api.tools_at or "tools", model.name)
    if api.prompts and isinstance(api.prompts[0], list):
        return _id_lanes(present, model)
    if api.answers == 1 and (api.prompts is None or len(api.prompts) == 1):
        return None
    # Choices are requests of their own on Triton lanes; an upstream makes them all, and takes any option.
    return _OPENAI_LANES if api.options is not None and present & _OPENAI_LANES else TRITON_LANES


def _crosses(snapshot: Snapshot, model: Model, api: ApiRequest) -> bool:
    """Whether a rollout moves the model to Triton, by what both sides can serve."""
    rolling = snapshot.rolling.get(model.name)
    if rolling is None or all(one.lane in _OPENAI_LANES for one in rolling.candidate):
        return False
    plain = not (api.unsupported or api.unknown or api.template_names or api.options)
    no_parser = api.tools_at is not None and model.tool_parser is None
    texts = api.prompts is None or (len(api.prompts) == 1 and isinstance(api.prompts[0], str))
    return plain and not no_parser and texts and api.answers == 1


def _id_lanes(present: frozenset[str], model: Model) -> frozenset[str]:
    """Lanes that take token ids as they are; a text lane's server would tokenise their text again."""
    if present and not present & _ID_LANES:
        raise bad_request(
            f"`prompt` as token ids is not supported by {model.name!r}, whose server takes text "
            f"({', '.join(sorted(present))}). Send text.",
            "prompt",
            "unsupported_parameter",
        )
    return _BARE_LANE if present & _BARE_LANE or not present else _OPENAI_LANES
