"""Looks at the engine's folder: is it one, whole, of the server's version, and built for what is asked of it?

Sources: contract sheet §3.2 and §4.1. Today's CPU engines may be plain model folders; of those only what is
there is looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from engine_builder.preflight.problems import Look, Problem
from engine_builder.preflight.subject import Subject
from inference.schema import is_true
from router.gpus import architecture_of

_RANK = re.compile(r"rank(\d+)\.engine")
_BUILT_PARTS = ("version", "pretrained_config", "build_config")


def folder(subject: Subject) -> Iterator[Problem]:
    """A path that holds no engine."""
    path = subject.engine_dir
    if path is None:
        return
    remedy = "point gpt_model_path at the folder with config.json and rank*.engine"
    if not path.is_dir():
        yield Problem(f"gpt_model_path: {path} is no folder", remedy)
    elif not (path / "config.json").is_file():
        yield Problem(f"{path} has no config.json", remedy)
    elif not subject.engine_config:
        yield Problem(f"{path}/config.json is not a JSON object", "build or fetch the engine anew")
    elif not _is_cpu_model(subject):
        missing = [part for part in _BUILT_PARTS if part not in subject.engine_config]
        if "builder_config" in subject.engine_config:
            yield Problem(
                f"{path}/config.json is of a TensorRT-LLM before 0.8", "build the engine with the server's"
            )
        elif missing:
            yield Problem(
                f"{path}/config.json lacks {', '.join(missing)}: a checkpoint, not an engine",
                "run trtllm-build on it, and point gpt_model_path at its output",
            )


def ranks(subject: Subject) -> Iterator[Problem]:
    """Rank files that do not fit the mapping."""
    mapping = subject.pretrained.get("mapping")
    if subject.engine_dir is None or not isinstance(mapping, dict):
        return
    world = mapping.get("world_size")
    sizes = [mapping.get(f"{name}_size", 1) for name in ("tp", "pp", "cp")]
    if not isinstance(world, int) or not all(isinstance(size, int) for size in sizes):
        yield Problem("mapping.world_size is not a number", "build the engine anew")
        return
    product = sizes[0] * sizes[1] * sizes[2]
    if product != world:
        yield Problem(
            f"mapping: world_size {world}, but tp x pp x cp is {product}",
            "convert the checkpoint anew with the wanted --tp_size and --pp_size",
        )
    found = {int(match[1]) for path in _files(subject.engine_dir) if (match := _RANK.fullmatch(path))}
    missing = sorted(set(range(world)) - found)
    if missing:
        yield Problem(
            f"{subject.engine_dir} lacks {', '.join(f'rank{rank}.engine' for rank in missing)}",
            f"copy all {world} rank files of the build, or build anew",
        )
    if more := sorted(found - set(range(world))):
        yield Problem(
            f"{subject.engine_dir} has rank{more[0]}.engine, beyond its {world} ranks",
            "remove what another build left there",
        )


def version(subject: Subject) -> Iterator[Problem]:
    """An engine of another version than its manifest's or its server's: none other can load it."""
    built = subject.engine_config.get("version")
    if not isinstance(built, str):
        return
    for other, whose in (
        (subject.manifest.version if subject.manifest is not None else None, "its manifest"),
        (subject.server_version, "the server"),
    ):
        if other is not None and other != built:
            yield Problem(
                f"the engine was built by TensorRT-LLM {built}, {whose} says {other}",
                f"build it with {other}, or serve it from an image with {built}",
            )


def architecture(subject: Subject) -> Iterator[Problem]:
    """GPUs of another class than those that the engine was built on."""
    if subject.manifest is None or subject.gpu_class is None:
        return
    built = subject.manifest.gpu_class
    if subject.gpu_class != built:
        there = architecture_of(subject.gpu_class) or "unknown"
        yield Problem(
            f"built for {built} ({subject.manifest.architecture or 'unknown'}), and the server has "
            f"{subject.gpu_class} ({there})",
            f"build an engine for {subject.gpu_class}: kernels are chosen on the very GPU",
        )


def limits(subject: Subject) -> Iterator[Problem]:
    """Configurations that ask for more than the engine was built for."""
    bare = subject.bare
    if bare is None or not subject.build:
        return
    built = subject.build.get("max_batch_size")
    if isinstance(built, int) and bare.config.max_batch_size > built:
        yield Problem(
            f"{bare.name}: max_batch_size {bare.config.max_batch_size}, and the engine was built for {built}",
            f"set max_batch_size to {built}, or build with --max_batch_size {bare.config.max_batch_size}",
        )
    width, asked = subject.build.get("max_beam_width"), bare.parameter("max_beam_width")
    if isinstance(width, int) and asked is not None and asked.isdigit() and int(asked) > width:
        yield Problem(
            f"{bare.name}: max_beam_width {asked}, and the engine was built for {width}",
            f"set max_beam_width to {width}, or build with --max_beam_width {asked}",
        )
    if asked is not None and asked.isdigit() and int(asked) > 1:
        yield Problem(
            f"{bare.name}: max_beam_width {asked} streams to no client: streaming wants a width of 1",
            "set max_beam_width to 1, or serve this engine outside of the gateway",
        )


def features(subject: Subject) -> Iterator[Problem]:
    """Runtime features that the build does not have."""
    bare = subject.bare
    if bare is None or not subject.build:
        return
    plugins, quantization = subject.plugins, _map(subject.pretrained.get("quantization"))
    paged = plugins.get("use_paged_context_fmha")
    for name, what in (("enable_kv_cache_reuse", "KV reuse"), ("enable_chunked_context", "chunked context")):
        if not is_true(bare.parameter(name)):
            continue
        if paged is False:
            yield Problem(
                f"{bare.name}: {name}, and an engine without paged context FMHA",
                f"build with --use_paged_context_fmha enable, or set {name} to false",
            )
        elif quantization.get("kv_cache_quant_algo") == "INT8":
            yield Problem(
                f"{bare.name}: {name}, and an engine with an INT8 KV cache, which has no {what}",
                f"set {name} to false, or build with another KV cache",
            )
    yield from _in_flight(subject, bare.name)
    lora = any(name.startswith("lora_") for name in bare.config.parameters if bare.parameter(name))
    if lora and not plugins.get("lora_plugin"):
        yield Problem(
            f"{bare.name}: LoRA caches, and an engine without the LoRA plugin",
            "build with --lora_plugin auto, or remove the lora_* parameters",
        )
    if bare.parameter("gpu_weights_percent") and not subject.build.get("weight_streaming"):
        yield Problem(
            f"{bare.name}: gpu_weights_percent, and an engine without weight streaming",
            "build with --weight_streaming, or remove the parameter",
        )


def _in_flight(subject: Subject, name: str) -> Iterator[Problem]:
    """What batching in flight cannot do without."""
    kind = str(subject.build.get("kv_cache_type") or "paged").lower().rpartition(".")[2]
    if kind != "paged":
        yield Problem(
            f"{name}: batching in flight, and an engine with a {kind} KV cache",
            "build with --kv_cache_type paged",
        )
    for plugin in ("remove_input_padding", "gpt_attention_plugin"):
        if plugin in subject.plugins and not subject.plugins[plugin]:
            yield Problem(
                f"{name}: batching in flight, and an engine without {plugin}",
                f"build with --{plugin} {'auto' if plugin.endswith('plugin') else 'enable'}",
            )


def guides(subject: Subject) -> Iterator[Problem]:
    """Guided decoding without the tokenizer's file."""
    bare = subject.bare
    if bare is None or bare.parameter("guided_decoding_backend") is None:
        return
    if bare.config.backend == "python" and not bare.emulated:
        return  # takes tokenizer_dir instead
    path = bare.parameter("xgrammar_tokenizer_info_path")
    if path is None and bare.emulated:
        return
    if path is None or not subject.local(path).is_file():
        yield Problem(
            f"{bare.name}: guided_decoding_backend, and "
            + ("no xgrammar_tokenizer_info_path" if path is None else f"no file {path}"),
            "make the file with TensorRT-LLM's generate_xgrammar_tokenizer_info.py and name it",
        )


def _is_cpu_model(subject: Subject) -> bool:
    return subject.emulated and "build_config" not in subject.engine_config


def _files(path: Path) -> list[str]:
    return [file.name for file in path.iterdir()] if path.is_dir() else []


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


LOOKS = (
    Look("engine_folder", folder),
    Look("ranks", ranks),
    Look("version", version),
    Look("architecture", architecture),
    Look("engine_limits", limits),
    Look("engine_features", features),
    Look("guided_decoding", guides),
)
