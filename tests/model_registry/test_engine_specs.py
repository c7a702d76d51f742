"""Specs of engines say in their own words what does not fit together."""

from __future__ import annotations

import pytest

from model_registry.engine_specs import EngineSpec
from model_registry.errors import ManifestErrors
from model_registry.manifests import parse_manifests, to_yaml

SPEC = "kind: EngineSpec\nname: chat\ncheckpoint: /checkpoints/chat\ngpu_class: h100-sxm\n"


def refused(more: str) -> str:
    with pytest.raises(ManifestErrors) as caught:
        parse_manifests([("spec.yaml", SPEC + more)])
    return "\n".join(map(str, caught.value.errors))


def test_a_profile_alone_is_a_spec() -> None:
    (spec,) = parse_manifests([("spec.yaml", SPEC + "profile: latency\n")])
    assert isinstance(spec, EngineSpec)
    assert spec.precision is None
    assert spec.gpus == 1
    assert parse_manifests([("again.yaml", to_yaml([spec]))]) == [spec]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("max_seq_len: 1024\n", "must hold workload.input_tokens + output_tokens (2560)"),
        ("paged_context_fmha: false\nkv_reuse: false\n", "chunked_context needs paged_context_fmha"),
        ("paged_context_fmha: false\nchunked_context: false\n", "kv_reuse needs paged_context_fmha"),
        ("precision: int4\n", "int4-awq"),
        ("tokens_per_block: 33\n", "tokens_per_block"),
        ("version: newest\n", "version"),
        ("tp: 2\n", "unknown field"),
    ],
)
def test_what_does_not_fit_is_named(more: str, words: str) -> None:
    assert words in refused(more)
