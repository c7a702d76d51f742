"""The doubles of TensorRT-LLM's programs: real arithmetic on a real checkpoint, real parsers' refusals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from emulator.engine import Engine, EngineLimits, EngineOutput, EngineRequest, SamplingParams, Weights
from emulator.engine.model_folders import engine_limits
from emulator.engine.tokenizer import EngineTokenizer
from emulator.train.corpus import dialogues
from emulator.train.hf_checkpoint import SHIPPED, write_hf_checkpoint
from engine_builder.doubles.__main__ import main
from engine_builder.doubles.engine_dir import HEADER
from engine_builder.doubles.float_formats import (
    from_e2m1,
    from_e4m3,
    to_bfloat16,
    to_e2m1,
    to_e4m3,
)
from engine_builder.doubles.quantizing import KINDS, dequantize, quantize
from engine_builder.doubles.telling import PAUSE
from engine_builder.doubles.tensor_files import Tensor, read_tensors, write_tensors
from engine_builder.errors import CheckpointError
from inference.safetensors_data import from_bfloat16

PROMPT = (0, 17, 250, 31, 900, 45, 12, 77, 301, 5)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_hf_checkpoint(tmp_path_factory.mktemp("hf") / "house-chat", shards=2)


def run(*words: object) -> int:
    return main([str(word) for word in words])


def convert(checkpoint: Path, folder: Path, *flags: object) -> Path:
    assert run("convert_checkpoint.py", "--model_dir", checkpoint, "--output_dir", folder, *flags) == 0
    return folder


def build(checkpoint: Path, folder: Path, *flags: object) -> Path:
    assert run("trtllm-build", "--checkpoint_dir", checkpoint, "--output_dir", folder, *flags) == 0
    return folder


def answers(folder: Path, prompts: Sequence[tuple[int, ...]], count: int = 24) -> list[list[int]]:
    """What a CPU engine says greedily, all at once."""
    engine = Engine(Weights.load(folder), EngineLimits(kv_blocks=64))
    outputs: dict[str, list[int]] = {str(number): [] for number in range(len(prompts))}
    ended = threading.Semaphore(0)

    def take(output: EngineOutput) -> None:
        outputs[output.request_id] += output.token_ids
        if output.final:
            ended.release()

    engine.start()
    try:
        for number, prompt in enumerate(prompts):
            request = EngineRequest(str(number), prompt, count, sampling=SamplingParams(temperature=0))
            engine.submit(request, take)
        for _ in prompts:
            assert ended.acquire(timeout=20)
    finally:
        engine.close()
    return list(outputs.values())


def answer(folder: Path, prompt: tuple[int, ...] = PROMPT, count: int = 24) -> list[int]:
    """To one prompt."""
    return answers(folder, [prompt], count)[0]


def test_a_checkpoint_in_hugging_faces_layout_is_the_same_model(checkpoint: Path) -> None:
    """Every array, from two shards with an index, bit by bit; and the files are the same each time."""
    ours, theirs = Weights.load(SHIPPED / "house-chat"), Weights.load(checkpoint)
    assert ours.arrays.keys() == theirs.arrays.keys()
    for name, array in ours.arrays.items():
        assert np.array_equal(array, theirs.arrays[name]), name
    again = write_hf_checkpoint(checkpoint.parent / "again", shards=2)
    for path in checkpoint.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes(), path.name


def test_files_are_read_by_the_formats_own_library(checkpoint: Path, tmp_path: Path) -> None:
    """Names, shapes and values, in the types that NumPy has."""
    flags = ("--use_weight_only", "--weight_only_precision", "int8")
    path = convert(checkpoint, tmp_path / "ck", *flags) / "rank0.safetensors"
    theirs, ours = load_file(path), read_tensors(path)
    assert theirs.keys() == ours.keys()
    assert all(np.array_equal(array, ours[name].data) for name, array in theirs.items())
    assert {"float16", "float32", "int8"} == {str(array.dtype) for array in theirs.values()}


@pytest.mark.parametrize(
    ("tensor", "pipeline", "flags"),
    [(1, 1, ()), (2, 2, ("--use_parallel_embedding",)), (4, 1, ()), (2, 3, ())],
)
def test_an_engine_of_any_split_answers_as_the_model(
    checkpoint: Path, tmp_path: Path, tensor: int, pipeline: int, flags: tuple[str, ...]
) -> None:
    """Converted and built by ranks; KV heads are in two ranks each at TP 4, layers uneven at PP 3."""
    split = ("--tp_size", tensor, "--pp_size", pipeline)
    converted = convert(checkpoint, tmp_path / "ck", *split, *flags)
    engine = build(converted, tmp_path / "engine")
    assert tensor * pipeline == len(list(engine.glob("rank*.engine")))
    ours, theirs = Weights.load(SHIPPED / "house-chat"), Weights.load(engine)
    assert all(np.array_equal(array, theirs.arrays[name]) for name, array in ours.arrays.items())
    if (tensor, pipeline) == (2, 2):
        assert answer(engine) == answer(SHIPPED / "house-chat")


def test_an_engine_says_what_it_is(checkpoint: Path, tmp_path: Path) -> None:
    """Version, config of the checkpoint and limits as TensorRT-LLM writes them; and that it is emulated."""
    converted = convert(checkpoint, tmp_path / "ck", "--tp_size", 2)
    limits = ("--max_batch_size", 8, "--max_num_tokens", 256, "--max_seq_len", 512, "--tokens_per_block", 64)
    engine = build(converted, tmp_path / "engine", *limits, "--lora_plugin", "auto", "--max_lora_rank", 8)
    config = json.loads((engine / "config.json").read_text())
    assert (config["runtime"], config["version"]) == ("emulated", "1.2.1")
    assert config["pretrained_config"]["mapping"]["world_size"] == 2
    assert config["build_config"]["plugin_config"]["use_paged_context_fmha"] is True
    assert (engine / "rank0.engine").read_bytes().startswith(b"emulated engine, no TensorRT plan")
    assert engine_limits(engine) == {
        "max_batch_size": 8,
        "max_num_tokens": 256,
        "max_seq_len": 512,
        "max_input_len": 511,
        "tokens_per_block": 64,
        "enable_kv_cache_reuse": True,
        "max_lora_rank": 8,
    }


@pytest.mark.parametrize(
    ("qformat", "most"), [("fp8", 0.05), ("int8_sq", 0.01), ("int4_awq", 0.1), ("nvfp4", 0.2)]
)
def test_quantized_engines_are_nearly_the_model(
    checkpoint: Path, tmp_path: Path, qformat: str, most: float
) -> None:
    """Each weight is off by a little, none of the embeddings by anything, in engines and exports alike."""
    flags = ("--model_dir", checkpoint, "--qformat", qformat, "--kv_cache_dtype", "fp8")
    assert run("quantize.py", *flags, "--tp_size", 2, "--output_dir", tmp_path / "ck") == 0
    assert run("quantize.py", *flags, "--export_format", "hf", "--output_dir", tmp_path / "hf") == 0
    exact = Weights.load(SHIPPED / "house-chat")
    for folder in (build(tmp_path / "ck", tmp_path / "engine"), tmp_path / "hf"):
        rounded = Weights.load(folder)
        assert np.array_equal(exact.embed, rounded.embed)
        off = [
            np.abs(rounded.arrays[name] - array).max() / np.abs(array).max()
            for name, array in exact.arrays.items()
            if array.ndim == 2 and name != "embed"
        ]
        assert 0 < min(off) <= max(off) < most
        assert answer(folder, count=4)


def test_an_fp8_engine_still_knows_what_the_model_knows(checkpoint: Path, tmp_path: Path) -> None:
    """Most of its answers to what the model was trained on are the model's own, from half of the bytes."""
    flags = ("--model_dir", checkpoint, "--qformat", "fp8", "--output_dir", tmp_path / "ck")
    assert run("quantize.py", *flags) == 0
    engine = build(tmp_path / "ck", tmp_path / "engine")
    tokenizer = EngineTokenizer(checkpoint)
    asked = [
        tuple(tokenizer.encode(tokenizer.render_chat(messages[:1]), add_special_tokens=False))
        for messages in dialogues("house-chat", 6, 123)
    ]
    same = [answers(engine, asked)[n] == text for n, text in enumerate(answers(checkpoint, asked))]
    assert sum(same) >= 5
    wide = build(convert(checkpoint, tmp_path / "wide"), tmp_path / "wide_engine")
    linear, rest = 2 * 870_000, 2 * 2 * 2203 * 144
    assert (wide / "rank0.engine").stat().st_size > linear + rest
    assert (engine / "rank0.engine").stat().st_size < 0.55 * linear + rest + 20_000


def test_a_build_that_is_killed_leaves_nothing_that_looks_whole(checkpoint: Path, tmp_path: Path) -> None:
    """`config.json` comes last, and a rank file is there only when all of it is."""
    converted = convert(checkpoint, tmp_path / "ck", "--tp_size", 2)
    whole = build(converted, tmp_path / "whole")
    flags = ["--checkpoint_dir", converted, "--output_dir", tmp_path / "killed"]
    command = [sys.executable, "-m", "engine_builder.doubles", "trtllm-build", *map(str, flags)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, PAUSE: "30"}, bufsize=1
    ) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        process.kill()
    assert "TensorRT-LLM version: 1.2.1 (emulated)" in first
    killed = tmp_path / "killed"
    assert not (killed / "config.json").exists()
    for path in killed.glob("rank*.engine"):
        assert path.read_bytes() == (whole / path.name).read_bytes()


def test_a_full_disk_leaves_no_rank_file(tmp_path: Path) -> None:
    """A file takes its name when all of it is written."""

    class Broken(dict[str, Tensor]):
        """Ends after its header, as a disk that is full does."""

        reads = 0

        def items(self) -> Any:
            self.reads += 1
            if self.reads > 1:
                raise OSError(28, "No space left on device")
            return super().items()

    with pytest.raises(OSError, match="No space left"):
        write_tensors(tmp_path / "rank0.engine", Broken(a=Tensor("U8", np.zeros(8, np.uint8))), HEADER)
    assert not (tmp_path / "rank0.engine").exists()


def test_heads_leave_the_answers_as_they_are(checkpoint: Path, tmp_path: Path) -> None:
    """A model that guesses ahead says what it says without."""
    flags = ("--model_dir", checkpoint, "--output_dir", tmp_path / "ck", "--medusa_model_dir", "/heads")
    assert run("medusa/convert_checkpoint.py", *flags, "--max_medusa_token_len", 63) == 0
    engine = build(tmp_path / "ck", tmp_path / "engine", "--speculative_decoding_mode", "medusa")
    assert answer(engine, count=4) == answer(checkpoint, count=4)


def test_bfloat16_becomes_half_in_an_engine(checkpoint: Path, tmp_path: Path) -> None:
    converted = convert(checkpoint, tmp_path / "ck", "--dtype", "bfloat16")
    engine = build(converted, tmp_path / "engine")
    before = read_tensors(converted / "rank0.safetensors")
    after = read_tensors(
        engine / "rank0.engine", len((engine / "rank0.engine").read_bytes().split(b"\n")[0]) + 1
    )
    assert {tensor.dtype for tensor in before.values()} == {"BF16"}
    assert {tensor.dtype for tensor in after.values()} == {"F16"}
    assert Weights.load(engine).embed.shape == (2203, 144)


def test_rules_at_build_time_switch_features_off(checkpoint: Path, tmp_path: Path, capsys: Any) -> None:
    """An INT8 KV cache takes paged context FMHA along, and so KV reuse; unquantized weights FP8 FMHA."""
    engine = build(convert(checkpoint, tmp_path / "ck", "--int8_kv_cache"), tmp_path / "engine")
    plugins = json.loads((engine / "config.json").read_text())["build_config"]["plugin_config"]
    assert (plugins["use_paged_context_fmha"], plugins["use_fp8_context_fmha"]) == (False, False)
    limits = engine_limits(engine)
    assert limits is not None
    assert limits["enable_kv_cache_reuse"] is False
    assert "use_paged_context_fmha is switched off: INT8 KV cache" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("trtllm-build --tp_size 4", "unrecognized arguments: --tp_size 4"),
        ("trtllm-build --kv_cache_type ring", "argument --kv_cache_type: invalid choice: 'ring'"),
        ("trtllm-build --max_batch_size many", "argument --max_batch_size: invalid int value: 'many'"),
        ("convert_checkpoint.py --qformat fp8", "unrecognized arguments: --qformat fp8"),
        ("quantize.py --qformat fp16", "argument --qformat: invalid choice: 'fp16'"),
    ],
)
def test_flags_are_refused_as_by_the_real_parser(line: str, said: str, capsys: Any) -> None:
    with pytest.raises(SystemExit) as stop:
        main(line.split())
    assert stop.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("convert_checkpoint.py --model_dir {hf} --tp_size 3", "tp_size 3 does not divide 4 heads"),
        ("convert_checkpoint.py --model_dir {hf} --pp_size 9", "pp_size 9 is above the 4 layers"),
        ("convert_checkpoint.py --model_dir {nowhere}", "cannot be read"),
        ("quantize.py --qformat fp8", "no --model_dir"),
        ("trtllm-build --checkpoint_dir {hf}", "no TensorRT-LLM checkpoint"),
    ],
)
def test_what_cannot_be_built_ends_with_the_reason(
    line: str, said: str, checkpoint: Path, tmp_path: Path, capsys: Any
) -> None:
    filled = line.format(hf=checkpoint, nowhere=tmp_path / "nowhere")
    assert run(*filled.split(), "--output_dir", tmp_path / "out") == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out" / "config.json").exists()


def test_an_engine_that_lacks_a_rank_is_not_loaded(checkpoint: Path, tmp_path: Path) -> None:
    engine = build(convert(checkpoint, tmp_path / "ck", "--tp_size", 2), tmp_path / "engine")
    (engine / "rank1.engine").unlink()
    with pytest.raises(CheckpointError, match=r"lacks rank1\.engine of 2 ranks"):
        Weights.load(engine)


def test_a_real_engine_is_not_taken_for_an_emulated_one(checkpoint: Path, tmp_path: Path) -> None:
    engine = build(convert(checkpoint, tmp_path / "ck"), tmp_path / "engine")
    (engine / "rank0.engine").write_bytes(b"ftrt" * 100)
    with pytest.raises(CheckpointError, match="no emulated engine"):
        Weights.load(engine)


def test_a_head_of_its_own_makes_the_logits(tmp_path: Path) -> None:
    """A checkpoint that does not tie its head keeps it through conversion and in the engine."""
    folder = write_hf_checkpoint(tmp_path / "hf", "depot-chat")
    tensors = read_tensors(folder / "model.safetensors")
    head = tensors["model.embed_tokens.weight"].floats()[::-1]
    write_tensors(folder / "model.safetensors", {**tensors, "lm_head.weight": Tensor.of(head, "F16")})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    engine = build(convert(folder, tmp_path / "ck"), tmp_path / "engine")
    assert np.array_equal(Weights.load(folder).head, head)
    assert np.array_equal(Weights.load(engine).head, head)
    assert not np.array_equal(Weights.load(engine).embed, head)
    reversed_ids = [1279 - token for token in answer(SHIPPED / "depot-chat", (0, 5, 9), 1)]
    assert reversed_ids == answer(engine, (0, 5, 9), 1)


_FLOATS = st.lists(st.floats(-500, 500, width=32, allow_subnormal=False), min_size=1, max_size=40)


@settings(max_examples=40, deadline=None)
@given(_FLOATS)
def test_small_floats_are_the_nearest_there_is(values: list[float]) -> None:
    """No other value of the format is nearer, and what is exact stays."""
    array = np.array(values, np.float32)
    for encode, decode, bits in (
        (to_e4m3, from_e4m3, np.arange(127, dtype=np.uint8)),
        (to_e2m1, from_e2m1, np.arange(8, dtype=np.uint8)),
    ):
        table = decode(bits)
        got = decode(encode(array))
        nearest = np.abs(np.abs(array)[:, None] - table[None, :]).min(axis=1)
        assert np.allclose(np.abs(np.abs(array) - np.abs(got)), nearest)
        assert np.array_equal(np.signbit(got), np.signbit(array))
        assert np.array_equal(encode(table), bits)
    half = from_bfloat16(to_bfloat16(array))
    assert np.all(np.abs(half - array) <= np.abs(array) / 256)
    assert np.array_equal(from_bfloat16(to_bfloat16(half)), half)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(sorted(set(KINDS.values()))),
    st.integers(1, 9),
    st.integers(1, 40),
    st.sampled_from([None, 8, 128]),
    st.integers(0, 2**32 - 1),
)
def test_what_quantization_keeps_is_within_half_a_step(
    kind: Any, outputs: int, inputs: int, group: int | None, seed: int
) -> None:
    """Any shape comes back: odd widths, groups that do not divide, rows of zeros."""
    matrix = np.random.default_rng(seed).standard_normal((outputs, inputs), dtype=np.float32)
    matrix[0] = 0
    back = dequantize(quantize(matrix, kind, group), inputs, group)
    assert back.shape == matrix.shape
    assert np.array_equal(back[0], matrix[0])
    largest = np.abs(matrix).max()
    share = {
        "fp8": 1 / 28,
        "int8": 1 / 253,
        "int4": 1 / 13,
        "nvfp4": 1 / 5,
    }[kind]
    assert np.abs(back - matrix).max() <= share * largest + 1e-6
