"""Steps: which programs build which engine, in which order, and what they make."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from emulator.engine import Weights
from emulator.train.hf_checkpoint import write_hf_checkpoint
from engine_builder.checkpoint import Checkpoint
from engine_builder.errors import BuilderError, SpecError
from engine_builder.steps import OUTPUT, Step, Tools, build_steps, keys
from engine_builder.steps.check import main as check
from tests.engine_builder.specs import (
    DOUBLES,
    LLAMA_8B,
    LLAMA_70B,
    checkpoint_of,
    flags_of,
    names_of,
    spec_of,
    steps_of,
)


def test_other_weights_make_other_keys() -> None:
    first = build_steps(spec_of(), checkpoint_of(), "one", DOUBLES)
    second = build_steps(spec_of(), checkpoint_of(), "two", DOUBLES)
    assert set(keys(first).values()).isdisjoint(keys(second).values())


def test_llama_70b_on_four_gpus() -> None:
    """The worked example: split at conversion, four rank files at each step, none said to trtllm-build."""
    spec = spec_of(
        tensor_parallel=4,
        max_batch_size=64,
        max_seq_len=10240,
        max_num_tokens=16384,
        workload={"input_tokens": 8192},
    )
    convert, compile_ = steps_of(spec, LLAMA_70B)
    assert (convert.name, compile_.name) == ("convert", "compile")
    program, flags = flags_of(convert)
    assert program == "convert_checkpoint.py"
    assert " ".join(flags) == (
        f"--model_dir /models/llama --output_dir {OUTPUT} --dtype bfloat16 --tp_size 4 --pp_size 1 "
        "--workers 4 --use_parallel_embedding"
    )
    assert convert.expects == ("config.json", *(f"rank{n}.safetensors" for n in range(4)))
    program, flags = flags_of(compile_)
    assert program == "trtllm-build"
    assert " ".join(flags) == (
        f"--checkpoint_dir {{convert}} --output_dir {OUTPUT} --max_batch_size 64 --max_seq_len 10240 "
        "--max_num_tokens 16384 --max_beam_width 1 --kv_cache_type paged --tokens_per_block 32 "
        "--remove_input_padding enable --context_fmha enable --use_paged_context_fmha enable "
        "--use_fp8_context_fmha disable --gpt_attention_plugin auto --gemm_plugin auto --workers 4 "
        f"--output_timing_cache {OUTPUT}/model.cache"
    )
    assert compile_.expects == ("config.json", *(f"rank{n}.engine" for n in range(4)))
    assert 141e9 < compile_.disk_bytes < 165e9  # 131.4 GiB of weights, tables of embeddings, a tenth to spare
    assert compile_.timeout_s > 4 * 3600


@pytest.mark.parametrize(
    ("precision", "kv", "program", "flags"),
    [
        ("fp16", "auto", "convert_checkpoint.py", "--dtype float16"),
        ("int8-wo", "auto", "convert_checkpoint.py", "--use_weight_only --weight_only_precision int8"),
        ("int4-wo", "auto", "convert_checkpoint.py", "--use_weight_only --weight_only_precision int4"),
        ("int8-sq", "auto", "convert_checkpoint.py", "--smoothquant 0.5 --per_channel --per_token"),
        ("fp8", "fp8", "quantize.py", "--qformat fp8 --kv_cache_dtype fp8 --calib_dataset cnn_dailymail"),
        ("nvfp4", "auto", "quantize.py", "--qformat nvfp4 --calib_dataset cnn_dailymail"),
        ("int4-awq", "auto", "quantize.py", "--qformat int4_awq --awq_block_size 128"),
        ("bf16", "fp8", "quantize.py", "--dtype bfloat16 --qformat full_prec --kv_cache_dtype fp8"),
        ("int8-wo", "int8", "quantize.py", "--qformat int8_wo --kv_cache_dtype int8"),
    ],
)
def test_each_precision_is_made_by_the_program_that_can(
    precision: str, kv: str, program: str, flags: str
) -> None:
    first, _ = steps_of(spec_of(precision=precision, kv_cache=kv))
    assert first.name == ("convert" if program == "convert_checkpoint.py" else "quantize")
    found, arguments = flags_of(first)
    assert found == program
    assert flags in " ".join(arguments)


def test_heads_are_converted_by_scripts_of_their_own() -> None:
    """Their draft checkpoint and its length go along; what such a script cannot do is refused."""
    speculative = {"mode": "medusa", "max_draft_len": 63, "draft_checkpoint": "/models/heads"}
    convert, compile_ = steps_of(spec_of(speculative=speculative, precision="int8-sq", tensor_parallel=2))
    program, arguments = flags_of(convert)
    assert program == "medusa/convert_checkpoint.py"
    assert "--medusa_model_dir /models/heads --max_medusa_token_len 63 --tp_size 2" in " ".join(arguments)
    assert "--calib_size" not in arguments
    assert "--speculative_decoding_mode medusa --max_draft_len 63" in " ".join(flags_of(compile_)[1])
    with pytest.raises(SpecError, match="medusa cannot have precision fp8 with kv_cache auto"):
        steps_of(spec_of(speculative=speculative, precision="fp8"))
    drafter = {**speculative, "mode": "explicit_draft_tokens"}
    with pytest.raises(SpecError, match="explicit_draft_tokens has no pipeline parallelism"):
        steps_of(spec_of(speculative=drafter, pipeline_parallel=2))
    with pytest.raises(SpecError, match="eagle needs draft_checkpoint"):
        steps_of(spec_of(speculative={"mode": "eagle", "max_draft_len": 4}))
    lookahead, _ = steps_of(spec_of(speculative={"mode": "lookahead_decoding", "max_draft_len": 4}))
    assert flags_of(lookahead)[0] == "convert_checkpoint.py"


def test_lanes_without_a_compiler_quantize_for_hugging_face_and_launch() -> None:
    plain = steps_of(spec_of(lane="llmapi"))
    assert [step.name for step in plain] == ["launch"]
    quantize, launch = steps_of(spec_of(lane="llmapi", precision="fp8", kv_cache="fp8", tensor_parallel=2))
    program, arguments = flags_of(quantize)
    assert program == "quantize.py"
    assert "--export_format hf" in " ".join(arguments)
    assert "--tp_size" not in arguments  # the LLM API splits when it loads
    assert "hf_quant_config.json" in quantize.expects
    document = yaml.safe_load(launch.files["model.yaml"].replace("{{", "{").replace("}}", "}"))
    assert document["model"] == "${checkpoint}"
    assert document["tensor_parallel_size"] == 2
    assert document["kv_cache_config"]["dtype"] == "fp8"
    assert document["triton_config"] == {"max_batch_size": 0, "decoupled": True}


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"lane": "llmapi"}, ["launch"]),
        ({"lane": "llmapi", "kv_cache": "fp8"}, ["launch"]),  # a setting of the server there
        ({"lane": "trtllm-serve", "precision": "int4-awq"}, ["quantize", "launch"]),
        ({"lane": "vllm", "precision": "fp8"}, ["launch"]),
        ({"lane": "vllm", "precision": "nvfp4"}, ["quantize", "launch"]),
    ],
)
def test_servers_load_what_they_can_make_themselves(fields: dict[str, Any], names: list[str]) -> None:
    assert names == names_of(spec_of(**fields))


def test_a_checkpoint_that_is_quantized_already_is_left_as_it_is() -> None:
    files = {"config.json": 600, "hf_quant_config.json": 200}
    checkpoint = Checkpoint("/models/llama-fp8", {}, LLAMA_8B, files)
    (launch,) = build_steps(spec_of(lane="vllm", precision="fp8"), checkpoint, "c0ffee", DOUBLES)
    assert "quantization" not in json.loads(launch.files["model.json"].replace("{{", "{").replace("}}", "}"))
    (ours,) = steps_of(spec_of(lane="vllm", precision="fp8"))
    assert '"quantization": "fp8"' in ours.files["model.json"]


@pytest.mark.parametrize(("lane", "precision"), [("llmapi", "int8-sq"), ("vllm", "int4-awq")])
def test_precisions_that_a_server_cannot_load_are_refused(lane: str, precision: str) -> None:
    with pytest.raises(SpecError, match=f"lane {lane} cannot have precision {precision}") as refused:
        steps_of(spec_of(lane=lane, precision=precision))
    assert "nvfp4" in refused.value.remedy


def test_a_checkpoint_in_a_store_is_fetched_first(tmp_path: Path) -> None:
    """Programs read folders; the copy is a step like others, and its text ends with `config.json`."""
    found = build_steps(spec_of(), checkpoint_of(url="memory://bucket/llama"), "c0ffee", DOUBLES)
    assert [step.name for step in found] == ["fetch", "convert", "compile"]
    assert "{fetch}" in found[1].argv
    source = write_hf_checkpoint(tmp_path / "hf", "depot-chat")
    command = [sys.executable, "-m", "engine_builder.steps.fetch", source.as_uri(), str(tmp_path / "copy")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert "5 of 5: config.json" in done.stdout
    assert {path.name for path in source.iterdir()} == {path.name for path in (tmp_path / "copy").iterdir()}


def test_a_spec_that_leaves_something_open_has_no_steps() -> None:
    with pytest.raises(SpecError, match="leaves max_num_tokens open"):
        steps_of(spec_of(max_num_tokens=None))


def test_versions_that_compile_no_engines_are_refused() -> None:
    with pytest.raises(SpecError, match=r"1\.3\.0 compiles no engines") as refused:
        steps_of(spec_of(version="1.3.0"))
    assert "llmapi" in refused.value.remedy
    assert [step.name for step in steps_of(spec_of(version="1.3.0", lane="llmapi"))] == ["launch"]


def test_an_int8_cache_is_of_compiled_engines_alone() -> None:
    with pytest.raises(SpecError, match="kv_cache int8 is of compiled engines alone, not of lane vllm"):
        steps_of(spec_of(lane="vllm", kv_cache="int8"))


def test_where_tensorrt_llm_is_not_installed_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is missing is named when it is needed: launch configurations want none of it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    tools = Tools.find("tensorrt-llm")
    with pytest.raises(BuilderError, match=r"convert_checkpoint\.py is not there") as missing:
        steps_of(spec_of(), tools=tools)
    assert "emulated" in missing.value.remedy
    assert [step.name for step in steps_of(spec_of(lane="vllm"), tools=tools)] == ["launch"]
    with pytest.raises(BuilderError, match=r"has no quantization/quantize\.py"):
        Tools.find("tensorrt-llm", tmp_path)


def test_real_programs_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`trtllm-build` on PATH and scripts of the examples' folder, Qwen's own for Qwen."""
    examples = tmp_path / "examples"
    for path in (
        "quantization/quantize.py",
        *(f"models/core/{n}/convert_checkpoint.py" for n in ("llama", "qwen")),
    ):
        (examples / path).parent.mkdir(parents=True, exist_ok=True)
        (examples / path).touch()
    program = tmp_path / "bin" / "trtllm-build"
    program.parent.mkdir()
    program.touch(mode=0o755)
    python = program.with_name("python3")
    python.write_text("#!/bin/sh\necho 1.2.1\n")
    python.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    tools = Tools.find("tensorrt-llm", examples)
    assert tools.version == "1.2.1"
    convert, compile_ = steps_of(spec_of(tensor_parallel=2), tools=tools)
    assert convert.argv[1] == str(examples / "models/core/llama/convert_checkpoint.py")
    assert compile_.argv[0] == str(program)
    assert (convert.gpus, compile_.gpus) == (0, 2)
    assert tools.programs.keys() >= {"trtllm-build", "quantize.py"}
    assert tools.command("convert_checkpoint.py", "Qwen3ForCausalLM")[1].endswith(
        "qwen/convert_checkpoint.py"
    )
    assert (convert.argv[0], convert.inputs["tool"]) == (str(python), "tensorrt-llm 1.2.1")
    with pytest.raises(SpecError, match=r"wants TensorRT-LLM 1\.1\.0, and 1\.2\.1 is installed"):
        steps_of(spec_of(version="1.1.0"), tools=tools)
    assert [step.name for step in steps_of(spec_of(version="1.1.0", lane="llmapi"), tools=tools)] == [
        "launch"
    ]
    quantize, _ = steps_of(spec_of(precision="fp8"), tools=tools)
    assert quantize.argv[1] == str(examples / "quantization/quantize.py")


def test_files_are_held_to_the_sheet_before_they_are_published(tmp_path: Path, capsys: Any) -> None:
    good, bad = tmp_path / "model.yaml", tmp_path / "bad.json"
    good.write_text("model: /m\nkv_cache_config: {enable_block_reuse: true}\n")
    bad.write_text('["trtllm-serve", "/m", "--tensor-parallel-size", "2"]')
    assert check([f"model.yaml={good}"]) == 0
    assert check([f"model.yaml={good}", f"trtllm-serve={bad}"]) == 1
    assert "vLLM's; here --tp_size" in capsys.readouterr().err


def test_steps_run_one_after_the_other_make_an_engine(tmp_path: Path) -> None:
    """From a folder to a loadable engine by the very command lines, as `--runtime emulated` runs them."""
    source = write_hf_checkpoint(tmp_path / "hf", "depot-chat")
    checkpoint = Checkpoint.open(str(source))
    limits = {
        "max_batch_size": 8,
        "max_seq_len": 512,
        "max_num_tokens": 256,
        "workload": {"input_tokens": 256, "output_tokens": 128},
    }
    spec = spec_of(checkpoint=str(source), gpu_class="cpu", precision="fp8", kv_cache="fp8", **limits)
    folders: dict[str, str] = {}
    for step in build_steps(spec, checkpoint, checkpoint.digest(), DOUBLES):
        folders[step.name] = _run(step, tmp_path / step.name, folders)
    assert Weights.load(folders["compile"]).config.vocab_size == 1280


def _run(step: Step, output: Path, folders: Mapping[str, str]) -> str:
    output.mkdir()
    names = {**folders, "output": str(output)}
    argv = [word.format(**names) for word in step.argv]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    for pattern in step.expects:
        assert list(output.glob(pattern)), pattern
    return str(output)
