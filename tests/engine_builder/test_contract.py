"""The contract sheet as data: lookups, and complaints in the programs' own terms."""

from __future__ import annotations

import pytest

from engine_builder.contract import TABLES, complaints, document_complaints, table
from engine_builder.contract.images import image_with, images_with
from engine_builder.contract.precision import (
    KV_QUANT_ALGO,
    KV_QUANT_ALGOS,
    QUANT_ALGO_BY_QFORMAT,
    QUANT_ALGOS,
)
from engine_builder.contract.precision import QFORMATS as QFORMATS_BY_PRECISION
from engine_builder.contract.versions import version_number


def _found(program: str, line: str, version: str = "1.2.1") -> dict[str, str]:
    return {one.name: one.message for one in complaints(program, line.split(), version)}


def test_a_command_line_of_the_pinned_version_is_taken() -> None:
    line = (
        "--checkpoint_dir ck --output_dir out --max_batch_size 64 --max_decoder_seq_len 2560 "
        "--kv_cache_type paged --use_paged_context_fmha enable --gather_context_logits "
        "--lora_plugin auto --lora_target_modules attn_q attn_v --workers=4"
    )
    assert _found("trtllm-build", line) == {}


@pytest.mark.parametrize(
    ("line", "name", "said"),
    [
        ("--tp_size 4", "--tp_size", "comes from the checkpoint"),
        ("--quantize_lm_head", "--quantize_lm_head", "comes from the checkpoint"),
        ("--auto_parallel 8", "--auto_parallel", "split in the checkpoint"),
        ("--multi_block_mode enable", "--multi_block_mode", "parameter of the tensorrt_llm model"),
        ("--max_output_len 512", "--max_output_len", "--max_seq_len"),
        ("--max_seqlen 512", "--max_seqlen", "did you mean --max_seq_len?"),
        ("--kv_cache_type ring", "--kv_cache_type", "invalid choice: 'ring'"),
        ("--max_batch_size many", "--max_batch_size", "invalid int value: 'many'"),
        ("--max_batch_size", "--max_batch_size", "expected one argument"),
        ("--gather_context_logits yes", "trtllm-build", "takes none without a flag, got 1"),
        ("--lora_target_modules attn_q attn_z", "--lora_target_modules", "invalid choice: 'attn_z'"),
    ],
)
def test_what_trtllm_build_refuses_is_said_with_the_reason(line: str, name: str, said: str) -> None:
    assert said in _found("trtllm-build", line)[name]


def test_a_flag_counts_by_version() -> None:
    """Auto-parallel planning was deleted in 1.2; newer flags are not in older versions."""
    assert _found("trtllm-build", "--auto_parallel 8", "0.19.0") == {}
    assert "new in 1.2" in _found("trtllm-serve", "M --media_io_kwargs {}", "1.0.0")["--media_io_kwargs"]
    assert _found("trtllm-serve", "M --media_io_kwargs {}", "1.2.1") == {}
    assert version_number("1.2.0rc2") == (1, 2, 0) < version_number("1.2.1")


def test_quantize_has_no_word_for_an_unquantized_cache() -> None:
    """`none` is how the sheet names the default; the program's parser refuses it as a value."""
    assert "invalid choice: 'none'" in _found("quantize.py", "--kv_cache_dtype none")["--kv_cache_dtype"]


def test_a_server_needs_its_model() -> None:
    assert "takes MODEL without a flag, got 0" in _found("vllm serve", "--port 8000")["vllm serve"]
    assert "--max-num-seqs" in _found("vllm serve", "m --max-batch-size 8")["--max-batch-size"]


def test_documents_are_judged_into_their_maps() -> None:
    """Keys of nested maps are looked up in their own tables, and named by their path."""
    document = {
        "model": "/m",
        "kv_cache_config": {"enable_kv_cache_reuse": True, "free_gpu_memory_fraction": 0.9},
        "scheduler_config": {"capacity_scheduler_policy": "max_utilization"},
        "build_config": {},
        "max_batch_size": "many",
    }
    found = {one.name: one.message for one in document_complaints("model.yaml", document)}
    assert found.keys() == {
        "kv_cache_config.enable_kv_cache_reuse",
        "scheduler_config.capacity_scheduler_policy",
        "build_config",
        "max_batch_size",
    }
    assert "enable_block_reuse" in found["kv_cache_config.enable_kv_cache_reuse"]
    assert "MAX_UTILIZATION" in found["scheduler_config.capacity_scheduler_policy"]


def test_parameters_of_the_bare_model_are_known_with_their_traps() -> None:
    given = {"gpt_model_type": "inflight_fused_batching", "gpt_model_path": "/e"}
    assert document_complaints("tensorrt_llm", {**given, "enable_chunked_context": "true"}) == []
    wrong = {**given, "decoding_mode": "top_p_top_k", "worker_path": "/w", "max_batch_size": "8"}
    found = {one.name: one.message for one in document_complaints("tensorrt_llm", wrong)}
    assert "top_k_top_p" in found["decoding_mode"]
    assert "executor_worker_path" in found["worker_path"]
    assert "the engine's own value rules" in found["max_batch_size"]
    assert "is required" in document_complaints("tensorrt_llm", {"gpt_model_path": "/e"})[0].message


def test_every_table_says_where_it_is_from_and_names_each_option_once() -> None:
    for one in TABLES.values():
        names = [name for option in one.options for name in (option.name, *option.aliases)]
        assert len(names) == len(set(names)), one.name
        assert one.source
        assert one.section
        for option in one.options:
            assert not option.keys or option.keys in TABLES
            assert option.default is None or not option.choices or option.default in option.choices


def test_no_option_of_the_pinned_version_is_called_absent() -> None:
    for one in TABLES.values():
        for option in one.at("1.2.1").options:
            assert not any(absent.covers(option.name, "1.2.1") for absent in one.absent), option.name


def test_precisions_lead_to_algorithms_that_exist() -> None:
    formats = table("quantize.py").find("--qformat")
    assert formats is not None
    assert set(QFORMATS_BY_PRECISION.values()) <= set(formats.choices) == set(QUANT_ALGO_BY_QFORMAT)
    assert {algo for algo in QUANT_ALGO_BY_QFORMAT.values() if algo} <= QUANT_ALGOS
    assert {algo for algo in KV_QUANT_ALGO.values() if algo} <= KV_QUANT_ALGOS


def test_images_by_version_tell_what_is_in_doubt() -> None:
    assert [image.tag for image in images_with("1.2.1")] == ["26.04", "26.05", "26.06", "26.07"]
    (doubted,) = images_with("1.2.0rc8")
    assert (doubted.tag, doubted.version) == ("26.03", "1.2.0")
    assert doubted.reference == "nvcr.io/nvidia/tritonserver:26.03-trtllm-python-py3"
    newest = image_with("1.2.1")
    assert newest is not None
    assert newest.tag == "26.07"
    assert image_with("1.2.0") is None, "the sources disagree"
