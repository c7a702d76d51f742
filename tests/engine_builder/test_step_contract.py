"""Whatever legal spec comes in, only flags and keys that the contract sheet has come out."""

from __future__ import annotations

import argparse
import functools
import json
from typing import Any, get_args

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine_builder.contract import complaints, document_complaints, table
from engine_builder.doubles.parsing import parser
from engine_builder.steps import Step, keys
from engine_builder.steps.building import EXPORTED, LOADED_AS_IT_IS
from model_registry.engine_specs import BuildLane, EngineSpec, KvPrecision, Precision, SpeculativeMode
from tests.engine_builder.specs import flags_of, spec_of, steps_of

_FILES = {"model.yaml": "model.yaml", "serve.yaml": "LLM", "model.json": "AsyncEngineArgs"}
_COMMANDS = {"trtllm-serve": ("trtllm-serve", 1), "vllm": ("vllm serve", 2)}


@st.composite
def specs(draw: st.DrawFn) -> EngineSpec:
    """Decided specs that the rules of the entity let through."""
    batch = draw(st.sampled_from([1, 8, 64, 2048]))
    paged = draw(st.booleans())
    lane = draw(st.sampled_from(get_args(BuildLane)))
    mode = draw(st.none() | st.sampled_from(get_args(SpeculativeMode)))
    if lane == "vllm" or (lane != "trt-engine" and mode == "explicit_draft_tokens"):
        mode = None
    heads = lane == "trt-engine" and mode in ("medusa", "eagle", "explicit_draft_tokens")
    precisions, caches, pipelines = list(get_args(Precision)), list(get_args(KvPrecision)), [1, 2, 4]
    if heads:
        precisions, caches = ["bf16", "fp16", "int8-wo", "int4-wo", "int8-sq"], ["auto"]
    if heads and mode == "explicit_draft_tokens":
        precisions, pipelines = ["bf16", "fp16"], [1]
    if lane != "trt-engine":
        precisions, caches = [*LOADED_AS_IT_IS[lane], *EXPORTED[lane]], ["auto", "fp8"]
    speculative = mode and {
        "mode": mode,
        "max_draft_len": draw(st.integers(1, 8)),
        "draft_checkpoint": "/models/draft" if heads else draw(st.none() | st.just("/models/draft")),
    }
    modules = st.lists(
        st.sampled_from(["attn_q", "attn_k", "attn_v", "attn_dense", "mlp_gate"]), min_size=1, unique=True
    )
    lora = st.fixed_dictionaries({"max_rank": st.integers(1, 64), "target_modules": modules})
    return spec_of(
        lane=lane,
        version=draw(st.sampled_from(["1.2.1", "1.1.0", "0.19.0"])),
        precision=draw(st.sampled_from(precisions)),
        kv_cache=draw(st.sampled_from(caches)),
        tensor_parallel=draw(st.sampled_from([1, 2, 4, 8])),
        pipeline_parallel=draw(st.sampled_from(pipelines)),
        max_batch_size=batch,
        max_num_tokens=max(batch, draw(st.sampled_from([2048, 8192]))),
        max_beam_width=draw(st.sampled_from([1, 4])),
        tokens_per_block=draw(st.sampled_from([16, 32, 64, 128])),
        paged_context_fmha=paged,
        chunked_context=paged and draw(st.booleans()),
        kv_reuse=paged and draw(st.booleans()),
        fp8_context_fmha=draw(st.booleans()),
        scheduler_policy=draw(st.sampled_from(["guaranteed_no_evict", "max_utilization"])),
        kv_fraction=draw(st.floats(0.05, 0.95)),
        gather_logits=draw(st.booleans()),
        speculative=speculative,
        lora=draw(st.none() | lora),
        calibration={"dataset": draw(st.sampled_from(["cnn_dailymail", "/data/{own} prompts"]))},
    )


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(specs())
def test_all_that_is_emitted_is_in_the_sheet(spec: EngineSpec) -> None:
    """No flag, value or key is unknown or absent in the spec's version; the doubles' parsers take each."""
    for step in steps_of(spec):
        for path, text in step.files.items():
            _judge_file(spec, path, text.replace("{{", "{").replace("}}", "}"))
        if step.name != "launch":
            program, arguments = flags_of(step)
            assert complaints(program, arguments, spec.version) == []
            assert not any(option.deprecated for option in map(table(program).find, arguments) if option)
            _parser(program, spec.version).parse_args(arguments)


@functools.cache
def _parser(program: str, version: str) -> argparse.ArgumentParser:
    return parser(program, version)


def _judge_file(spec: EngineSpec, path: str, text: str) -> None:
    version = "1.2.1" if spec.lane == "vllm" else spec.version
    if path in _FILES:
        assert document_complaints(_FILES[path], yaml.safe_load(text), version) == []
    else:
        program, words = _COMMANDS[spec.lane]
        assert complaints(program, json.loads(text)[words:], version) == []


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(specs(), specs())
def test_steps_are_told_apart_by_what_goes_in(one: EngineSpec, other: EngineSpec) -> None:
    """The same spec, the same keys; another in what a step reads, another key from there on."""
    assert keys(steps_of(one)) == keys(steps_of(one))
    ours, theirs = steps_of(one), steps_of(other)
    for step, twin in zip(ours, theirs, strict=False):
        if step.name == twin.name and _goes_in(step) != _goes_in(twin):
            assert keys(ours)[step.name] != keys(theirs)[twin.name]


def _goes_in(step: Step) -> tuple[Any, ...]:
    """Not what it may take: time, memory and GPUs."""
    return step.argv, dict(step.inputs), dict(step.environment), dict(step.files)
