"""Sampling as OpenAI's API means it, in the tensors that one schema declares."""

from __future__ import annotations

import random
from collections.abc import Mapping

from inference.errors import UnsupportedFeatureError
from inference.request import InferenceRequest, Sampling
from inference.schema import Schema

_CHECKED = (
    "temperature",
    "top_p",
    "top_k",
    "min_tokens",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
)
_COPIED = ("min_tokens", "presence_penalty", "frequency_penalty", "repetition_penalty")
_NEUTRAL = {"min_tokens": 0, "presence_penalty": 0, "frequency_penalty": 0, "repetition_penalty": 1}
"""Values that ask for nothing."""
_SEED_MASK = (1 << 64) - 1


class SamplingTensors:
    """Names that one schema has for each setting."""

    def __init__(self, schema: Schema, names: Mapping[str, tuple[str, ...]]) -> None:
        """`names`: for each setting the tensors that may carry it; the first one declared does."""
        self._lane = schema.lane
        self._names = {
            setting: tensor
            for setting, candidates in names.items()
            if (tensor := next((c for c in candidates if c in schema.inputs), None)) is not None
        }

    def check(self, request: InferenceRequest) -> None:
        """Raise UnsupportedFeatureError for a setting without a tensor."""
        sampling = request.sampling
        for setting in _CHECKED:
            if getattr(sampling, setting) is not None and setting not in self._names:
                if getattr(sampling, setting) == _NEUTRAL.get(setting):
                    continue
                raise unsupported(self._lane, setting, request)

    def tensors(self, sampling: Sampling) -> dict[str, float | int]:
        """Tensors for `sampling`; only declared ones."""
        names = self._names
        return {names[s]: value for s, value in engine_settings(sampling).items() if s in names}


def engine_settings(sampling: Sampling) -> dict[str, float | int]:
    """What the engine must be told. Its own defaults are not OpenAI's:

    without top-k and top-p it takes the likeliest token whatever the temperature, so a temperature brings
    top-p 1 along; and its seed is a constant, so that equal requests without a seed would sample equally.
    """
    settings: dict[str, float | int] = {}
    if sampling.temperature == 0 or sampling.top_p == 0:
        settings["top_k"] = 1
    else:
        settings = _random_settings(sampling)
    for name in _COPIED:
        value = getattr(sampling, name)
        if value is not None:
            settings[name] = value
    seed = sampling.seed
    settings["seed"] = random.getrandbits(63) if seed is None else seed & _SEED_MASK
    return settings


def _random_settings(sampling: Sampling) -> dict[str, float | int]:
    settings: dict[str, float | int] = {}
    if sampling.temperature is not None:
        settings["temperature"] = sampling.temperature
    if sampling.top_k is not None and sampling.top_k > 0:
        settings["top_k"] = sampling.top_k
    if sampling.top_p is not None:
        settings["top_p"] = sampling.top_p
    elif "temperature" in settings and "top_k" not in settings:
        settings["top_p"] = 1.0
    return settings


def unsupported(
    lane: str, field: str, request: InferenceRequest, why: str = "it has no tensor for it"
) -> UnsupportedFeatureError:
    """The refusal of a request's field by `lane`, by the name that the client gave it."""
    options = request.options
    param = field if options is None else options.names.get(field, field)
    return UnsupportedFeatureError(
        f"`{param}` is not supported by the {lane} lane of this model: {why}. Remove it.", param=param
    )
