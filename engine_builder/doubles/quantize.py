"""The double of `quantize.py`: quantizes, and writes a TensorRT-LLM checkpoint or Hugging Face's layout."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine_builder.contract import PINNED
from engine_builder.contract.precision import MODELOPT_VERSIONS, QUANT_ALGO_BY_QFORMAT
from engine_builder.doubles.checkpoint_writer import STORED, Quantization, activations, write_checkpoint
from engine_builder.doubles.hf_folder import PART_NAMES, QUANT_FILE, HfFolder
from engine_builder.doubles.layout import EMBEDDING, FINAL_NORM, HEAD, MATRICES, NORMS, Ranks
from engine_builder.doubles.parsing import parse
from engine_builder.doubles.quantizing import KINDS, quantize
from engine_builder.doubles.telling import VERSION, say
from engine_builder.doubles.tensor_files import Tensor, write_json, write_tensors
from engine_builder.errors import CheckpointError

PROGRAM = "quantize.py"
_AWQ = ("int4_awq", "w4a8_awq")
_SMALL_FILES = 64 * 1024 * 1024


def main(arguments: Sequence[str] | None = None) -> None:
    """Quantizes. Raises CheckpointError."""
    options = parse(PROGRAM, arguments, os.environ.get(VERSION) or PINNED)
    say(f"TensorRT-LLM version: {os.environ.get(VERSION) or PINNED} (emulated)")
    if options.model_dir is None:
        raise CheckpointError("no --model_dir", "name the folder of a Hugging Face checkpoint")
    if options.autoq_format is not None or options.cp_size != 1:
        raise CheckpointError("--autoq_format and --cp_size above 1 cannot be doubled", "leave them out")
    source, output = HfFolder.open(Path(options.model_dir)), Path(options.output_dir)
    quantization = Quantization(
        QUANT_ALGO_BY_QFORMAT[options.qformat],
        None if options.kv_cache_dtype is None else options.kv_cache_dtype.upper(),
        options.awq_block_size if options.qformat in _AWQ else None,
    )
    say(f"calibration on {options.calib_dataset} is left out: weights are rounded by themselves")
    if options.export_format == "hf":
        _export(source, output, activations(source, options.dtype), quantization)
    else:
        ranks = Ranks(options.tp_size, options.pp_size)
        write_checkpoint(source, output, ranks, options.dtype, quantization)


def _export(source: HfFolder, output: Path, dtype: str, quantization: Quantization) -> None:
    """Hugging Face's layout with scales beside the weights, and `config.json` last."""
    Ranks().check(source.shape)
    output.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    for name in _names(source):
        values = source.floats(name)
        linear = any(part in name for parts in MATRICES.values() for part in parts)
        if not linear or quantization.algo is None:
            tensors[name] = Tensor.of(values, STORED[dtype])
            continue
        base = name.removesuffix("weight")
        parts = quantize(values, KINDS[quantization.algo], quantization.group)
        tensors |= {base + PART_NAMES[part]: tensor for part, tensor in parts.items()}
        say(f"quantized {name}")
    write_tensors(output / "model.safetensors", tensors)
    _copy_small_files(source.path, output)
    write_json(
        output / QUANT_FILE,
        {
            "producer": {"name": "modelopt", "version": _modelopt()},
            "quantization": {
                "quant_algo": quantization.algo,
                "kv_cache_quant_algo": quantization.kv_cache_algo,
                "group_size": quantization.group,
                "exclude_modules": ["lm_head"],
            },
        },
    )
    config: dict[str, Any] = dict(source.config)
    write_json(output / "config.json", {**config, "runtime": "emulated"})
    say(f"Quantized model exported to {output}")


def _modelopt() -> str:
    """The version that goes with the TensorRT-LLM that is spoken for, where its release notes name one."""
    minor = ".".join((os.environ.get(VERSION) or PINNED).split(".")[:2])
    return f"{MODELOPT_VERSIONS.get(minor, 'unknown')} (emulated)"


def _names(source: HfFolder) -> list[str]:
    layers = range(source.shape.layers)
    names = [
        EMBEDDING,
        FINAL_NORM,
        *(f"model.layers.{n}.{norm}.weight" for n in layers for norm in NORMS.values()),
    ]
    names += [
        f"model.layers.{n}.{part}.weight" for n in layers for parts in MATRICES.values() for part in parts
    ]
    return names if source.shape.tied_embeddings and not source.has(HEAD) else [*names, HEAD]


def _copy_small_files(source: Path, output: Path) -> None:
    """Tokenizer, template, generation defaults; not weights, nor what is written anew."""
    for path in sorted(source.iterdir()):
        anew = path.name in ("config.json", QUANT_FILE) or "safetensors" in path.name
        if path.is_file() and not anew and path.stat().st_size < _SMALL_FILES:
            shutil.copyfile(path, output / path.name)
