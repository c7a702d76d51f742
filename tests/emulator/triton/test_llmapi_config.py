"""`1/model.yaml` of the llmapi model, read without a YAML library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emulator.triton.llmapi_config import parameters_of_yaml
from emulator.triton.plain_yaml import read_yaml

DOCUMENT = """
# as the real model has it
model: /models/house-chat   # a folder
tokenizer: '/models/it''s'
max_batch_size: 8
max_num_tokens: 512
max_seq_len: 1024
enable_chunked_prefill: true
kv_cache_config:
  enable_block_reuse: false
  max_tokens: 4096
  tokens_per_block: 16
scheduler_config:
  capacity_scheduler_policy: MAX_UTILIZATION
enable_lora: true
lora_config:
  max_lora_rank: 4
  lora_target_modules:
  - attn_q
  - attn_v
triton_config:
  max_batch_size: 0
  decoupled: true
  cancellation_check_period_ms: 50
"""


def _args(folder: Path, text: str | None) -> dict[str, str]:
    (folder / "1").mkdir()
    if text is not None:
        (folder / "1" / "model.yaml").write_text(text)
    return {"model_repository": str(folder), "model_version": "1"}


def test_what_the_file_says_becomes_parameters(tmp_path: Path) -> None:
    found = parameters_of_yaml(_args(tmp_path, DOCUMENT))
    assert json.loads(found.pop("emulator_limits")) == {
        "max_batch_size": 8,
        "max_num_tokens": 512,
        "max_seq_len": 1024,
        "max_input_len": 1023,
        "tokens_per_block": 16,
        "max_lora_rank": 4,
    }
    assert found == {
        "emulator_model": "/models/house-chat",
        "tokenizer_dir": "/models/it's",
        "enable_kv_cache_reuse": "false",
        "enable_chunked_context": "true",
        "max_tokens_in_paged_kv_cache": "4096",
        "batch_scheduler_policy": "max_utilization",
        "cancellation_check_period_ms": "50",
    }


def test_without_a_file_nothing_is_said(tmp_path: Path) -> None:
    assert parameters_of_yaml(_args(tmp_path, None)) == {}


def test_another_file_is_named_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("model: /m\n")
    monkeypatch.setenv("LLM_CONFIG_PATH", str(other))
    assert parameters_of_yaml(_args(tmp_path, DOCUMENT))["emulator_model"] == "/m"


def test_a_file_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must name the checkpoint's folder as `model`"):
        parameters_of_yaml(_args(tmp_path, "max_batch_size: 8\n"))


@pytest.mark.parametrize(
    "text", ["a: &x 1\n", "- a\n- b\n", "a:\n    b: 1\n  c: 2\n", "a: [1, 2\n", "a: |\n  x\n"]
)
def test_what_is_beyond_the_reader_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="cannot read this YAML"):
        read_yaml(text)


_WORDS = st.text("abz_", min_size=1, max_size=6)
_TEXTS = st.text("aZ/_.${}- '", min_size=1, max_size=8)
_PLAIN: Any = st.none() | st.booleans() | st.integers(-9999, 9999) | _TEXTS
_DOCUMENTS = st.recursive(
    _PLAIN | st.lists(_PLAIN, min_size=1, max_size=3),
    lambda inner: st.dictionaries(_WORDS, inner, min_size=1, max_size=3),
    max_leaves=5,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(_WORDS, _DOCUMENTS, min_size=1, max_size=4))
def test_what_the_library_writes_is_read_back(document: dict[str, Any]) -> None:
    """Documents of the kind that `launch` steps leave; of what it cannot read it says so."""
    assert read_yaml(yaml.safe_dump(document, sort_keys=False)) == document
