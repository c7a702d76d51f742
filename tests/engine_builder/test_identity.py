"""The same that went in has the same digest; whatever changes what is built changes it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_builder.identity import DECIDED, engine_digest, engine_name
from engine_builder.steps.step import Step, keys
from model_registry.engine_specs import EngineSpec, Workload

SPEC = EngineSpec(
    name="chat-fp8",
    checkpoint="/checkpoints/chat",
    gpu_class="h100-sxm",
    precision="fp8",
    kv_cache="fp8",
    tensor_parallel=1,
    pipeline_parallel=1,
    max_batch_size=64,
    max_seq_len=4096,
    max_num_tokens=8192,
    fp8_context_fmha=True,
    scheduler_policy="guaranteed_no_evict",
)
WEIGHTS = "ab" * 32


def test_names_and_places_do_not_count() -> None:
    moved = SPEC.model_copy(update={"name": "other", "model": "chat", "checkpoint": "s3://elsewhere"})
    assert engine_digest(moved, WEIGHTS, "emulated") == engine_digest(SPEC, WEIGHTS, "emulated")


@pytest.mark.parametrize(
    "change",
    [
        {"precision": "bf16"},
        {"tensor_parallel": 2},
        {"max_batch_size": 65},
        {"version": "1.2.0"},
        {"gpu_class": "h200-sxm"},
        {"kv_reuse": False},
        {"workload": Workload(input_tokens=100)},
    ],
)
def test_whatever_else_is_different_counts(change: dict[str, object]) -> None:
    other = SPEC.model_copy(update=change)
    assert engine_digest(other, WEIGHTS, "emulated") != engine_digest(SPEC, WEIGHTS, "emulated")


def test_weights_and_runtime_count() -> None:
    plain = engine_digest(SPEC, WEIGHTS, "emulated")
    assert engine_digest(SPEC, "cd" * 32, "emulated") != plain
    assert engine_digest(SPEC, WEIGHTS, "tensorrt-llm") != plain
    assert engine_name(SPEC, plain) == f"chat-fp8-{plain[:12]}"


@pytest.mark.parametrize("field", DECIDED)
def test_a_spec_that_leaves_something_open_has_no_digest(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        engine_digest(SPEC.model_copy(update={field: None}), WEIGHTS, "emulated")


texts = st.text("abc{}", max_size=3)


@given(st.lists(st.tuples(texts, texts), min_size=2, max_size=2, unique=True))
def test_steps_that_differ_have_different_keys(pairs: list[tuple[str, str]]) -> None:
    """No two ways to cut the same letters into arguments are the same."""
    first, second = (Step("convert", argv=pair) for pair in pairs)
    assert first.key({}) != second.key({})


def test_a_step_depends_on_all_before_it_that_it_needs() -> None:
    before = keys((Step("convert", ("a",)), Step("compile", ("b",), needs=("convert",))))
    after = keys((Step("convert", ("other",)), Step("compile", ("b",), needs=("convert",))))
    assert before["compile"] != after["compile"]
