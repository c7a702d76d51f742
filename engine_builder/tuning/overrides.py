"""Overrides: knobs in the words of Triton's model configuration. Pure.

A server takes a configuration with a load request and keeps its repository as it is: parameters of
`tensorrt_llm` are texts (`string_value`), and the batcher's delay is a number.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from engine_builder.errors import BuilderError
from engine_builder.tuning.space import Setting

IN_FLIGHT = "max_in_flight"
"""The gateway's knob: requests that an endpoint is given at once (`Deployment.max_concurrency`)."""
QUEUE_DELAY = "queue_delay_us"


class Parameter(NamedTuple):
    """A knob that is a parameter of the model."""

    key: str
    unset: str
    """What the engine does without it; empty: it has no such limit."""
    choices: tuple[str, ...] = ()
    """Tried where the operator names none."""


PARAMETERS: Mapping[str, Parameter] = MappingProxyType(
    {
        "scheduler_policy": Parameter(
            "batch_scheduler_policy", "guaranteed_no_evict", ("guaranteed_no_evict", "max_utilization")
        ),
        "chunked_context": Parameter("enable_chunked_context", "false", ("false", "true")),
        "kv_fraction": Parameter("kv_cache_free_gpu_mem_fraction", "0.9", ("0.8", "0.9", "0.95")),
        "kv_tokens": Parameter("max_tokens_in_paged_kv_cache", ""),
    }
)
SERVER_KNOBS = (*PARAMETERS, QUEUE_DELAY)
DELAYS_US = ("0", "500", "2000")
KNOBS = (*SERVER_KNOBS, IN_FLIGHT)


def checked(knob: str, value: str) -> str:
    """The value as configurations have it. Raises BuilderError naming what may stand there."""
    if knob == "scheduler_policy" and value not in PARAMETERS[knob].choices:
        raise _wrong(knob, value, "guaranteed_no_evict or max_utilization")
    if knob == "chunked_context":
        if value.lower() not in {"true", "false"}:
            raise _wrong(knob, value, "true or false")
        return value.lower()
    if knob == "kv_fraction" and not 0 < _number(knob, value) < 1:
        raise _wrong(knob, value, "a number between 0 and 1")
    if knob in {"kv_tokens", QUEUE_DELAY, IN_FLIGHT}:
        least = 0 if knob == QUEUE_DELAY else 1
        if not value.isdecimal() or int(value) < least:
            raise _wrong(knob, value, f"a whole number from {least} on")
        return str(int(value))
    return value


def _number(knob: str, value: str) -> float:
    try:
        return float(value)
    except ValueError as error:
        raise _wrong(knob, value, "a number") from error


def _wrong(knob: str, value: str, may_be: str) -> BuilderError:
    return BuilderError(f"--knob {knob}: {value!r} is not {may_be}", f"write --knob {knob}=A,B,...")


def stated(config: Mapping[str, Any], knob: str) -> str:
    """How a configuration has a knob of the server."""
    if knob == QUEUE_DELAY:
        return str(int(config.get("dynamic_batching", {}).get("max_queue_delay_microseconds", 0)))
    parameter = PARAMETERS[knob]
    value = str(config.get("parameters", {}).get(parameter.key, {}).get("string_value", ""))
    if not value or value.startswith("${"):
        return parameter.unset
    return value.lower() if knob == "chunked_context" else value


def overridden(config: Mapping[str, Any], setting: Setting) -> dict[str, Any]:
    """The configuration with the server's knobs of a setting; what is as it was stays untouched."""
    changed: dict[str, Any] = copy.deepcopy(dict(config))
    for knob, value in setting.values:
        if knob not in SERVER_KNOBS or stated(config, knob) == value:
            continue
        if knob == QUEUE_DELAY:
            changed.setdefault("dynamic_batching", {})["max_queue_delay_microseconds"] = int(value)
        else:
            changed.setdefault("parameters", {})[PARAMETERS[knob].key] = {"string_value": value}
    return changed


def config_lines(setting: Mapping[str, str]) -> list[str]:
    """What to write into `config.pbtxt` for knobs of the server to stay so."""
    lines = []
    for knob, value in setting.items():
        if knob == QUEUE_DELAY:
            lines.append(f"dynamic_batching {{ max_queue_delay_microseconds: {value} }}")
        elif knob in PARAMETERS:
            key = PARAMETERS[knob].key
            lines.append(f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}')
    return lines
