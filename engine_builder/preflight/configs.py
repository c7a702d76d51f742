"""Looks at `config.pbtxt` itself: can Triton read it, find the model's files, and queue and batch for it?

Sources: Triton's `model_config.proto` and repository layout; contract sheet §1 and §7.4.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from engine_builder.preflight.problems import Look, Problem
from engine_builder.preflight.subject import Model, Subject, is_unfilled
from engine_builder.repository.writer import CONFIG_FILE, VERSION

_PLACEHOLDER = re.compile(r"\$\{(\w+)\}")
_REQUIRED: dict[str, tuple[str, ...]] = {
    "tensorrt_llm": ("gpt_model_type", "gpt_model_path"),
    "preprocessing": ("tokenizer_dir",),
    "postprocessing": ("tokenizer_dir",),
}
"""Parameters that the models cannot do without."""
IN_FLIGHT_DELAY_US = 1000
"""The most that a model that batches in flight may be made to wait: it starts requests at once by itself."""


def unreadable(subject: Subject) -> Iterator[Problem]:
    """Configurations that Triton's protobuf does not parse."""
    for model in subject.models.values():
        if model.parse_error is None:
            continue
        left = sorted(set(_PLACEHOLDER.findall(model.text)))
        remedy = (
            f"fill the placeholders: {', '.join(f'${{{name}}}' for name in left)}"
            if left
            else "correct the text; Triton's model_config.proto has every field"
        )
        if not (model.folder / CONFIG_FILE).is_file():
            remedy = f"add a {CONFIG_FILE}, or remove the folder"
        yield Problem(f"{model.name}/{CONFIG_FILE}: {model.parse_error}", remedy)


def unfilled(subject: Subject) -> Iterator[Problem]:
    """Placeholders and empty values where a model cannot do without one; elsewhere defaults hold."""
    for model in _readable(subject):
        if is_unfilled(model.config.backend):
            yield Problem(
                f"{model.name}: backend is the placeholder {model.config.backend}",
                f"set backend: {'tensorrtllm' if model.role == 'tensorrt_llm' else 'python'}",
            )
        if model.role == "tensorrt_llm" and model.config.backend == "python" and not model.emulated:
            continue
        for name in _REQUIRED.get(model.role or "", ()):
            if model.parameter(name) is None:
                stated = model.stated(name)
                found = "missing" if stated is None else f"the placeholder {stated}" if stated else "empty"
                yield Problem(f"{model.name}: parameter {name} is {found}", _fill(name))


def _fill(name: str) -> str:
    return {
        "gpt_model_path": "set gpt_model_path to the folder with config.json and rank*.engine",
        "gpt_model_type": "set gpt_model_type to inflight_fused_batching",
        "tokenizer_dir": "set tokenizer_dir to the folder of the checkpoint's tokenizer",
    }[name]


def misplaced(subject: Subject) -> Iterator[Problem]:
    """Names, version folders and Python files that Triton does not find."""
    for model in _readable(subject):
        if model.config.name and model.config.name != model.name:
            yield Problem(
                f"{model.name}: the configuration is named {model.config.name}",
                f"name it as its folder: name: {model.name!r}",
            )
        versions = [path for path in model.folder.iterdir() if path.is_dir() and path.name.isdigit()]
        is_template = subject.manifest is not None and subject.location is None
        if not versions and not is_template:  # a store may keep no empty folders; `fetch` makes them
            yield Problem(
                f"{model.name} has no version folder",
                f"make the folder {model.name}/{VERSION}, empty if need be (Git keeps no empty folders)",
            )
        needs_code = model.config.backend == "python"
        if needs_code and versions and not any((path / "model.py").is_file() for path in versions):
            yield Problem(
                f"{model.name}/{VERSION}/model.py is missing",
                "copy the Python files of the TensorRT-LLM release that serves it "
                "(the setting engines.all_models, when packaging)",
            )


def backends(subject: Subject) -> Iterator[Problem]:
    """Backends that do not go with a model's tensors."""
    for model in _readable(subject):
        backend = model.config.backend
        match model.role:
            case "tensorrt_llm" if backend not in ("tensorrtllm", "python") and not is_unfilled(backend):
                yield Problem(
                    f"{model.name}: backend {backend or model.config.platform or 'none'!r} cannot run it",
                    "set backend: tensorrtllm",
                )
            case "ensemble" if not model.config.ensemble_scheduling.step:
                yield Problem(f"{model.name}: an ensemble without steps", "add ensemble_scheduling")
            case "preprocessing" | "postprocessing" | "tensorrt_llm_bls" | "llmapi" if backend != "python":
                if not is_unfilled(backend):
                    yield Problem(
                        f"{model.name}: backend {backend or 'none'!r} cannot run it", "set backend: python"
                    )
            case _:
                pass


def transactions(subject: Subject) -> Iterator[Problem]:
    """Models that cannot stream: not decoupled, or decoupled otherwise than the model they call."""
    for model in _readable(subject):
        streams = model.role in ("tensorrt_llm", "tensorrt_llm_bls", "llmapi", "vllm")
        if streams and not model.config.model_transaction_policy.decoupled:
            yield Problem(
                f"{model.name} is not decoupled and cannot stream",
                "set model_transaction_policy { decoupled: true }",
            )


def batching(subject: Subject) -> Iterator[Problem]:
    """Batch sizes, queues and delays that refuse or hold up requests."""
    for model in _readable(subject):
        config = model.config
        if model.role in ("tensorrt_llm", "ensemble", "tensorrt_llm_bls") and config.max_batch_size < 1:
            yield Problem(
                f"{model.name}: max_batch_size {config.max_batch_size}, and tensors with a batch dimension",
                "set max_batch_size to that of the engine",
            )
        if not config.HasField("dynamic_batching"):
            continue
        if config.max_batch_size < 1 and model.role not in ("tensorrt_llm", "ensemble", "tensorrt_llm_bls"):
            yield Problem(
                f"{model.name}: dynamic_batching without batches", "set max_batch_size, or remove it"
            )
        yield from _queue(model)


def _queue(model: Model) -> Iterator[Problem]:
    config, queue = model.config, model.config.dynamic_batching
    too_large = [size for size in queue.preferred_batch_size if size > max(config.max_batch_size, 1)]
    if too_large:
        yield Problem(
            f"{model.name}: preferred_batch_size {too_large[0]} is above max_batch_size",
            f"set preferred_batch_size to at most {config.max_batch_size}",
        )
    if model.role == "tensorrt_llm" and queue.max_queue_delay_microseconds > IN_FLIGHT_DELAY_US:
        yield Problem(
            f"{model.name}: every request waits up to {queue.max_queue_delay_microseconds} µs for others, "
            "which the engine takes in flight anyway",
            "set max_queue_delay_microseconds: 0",
        )
    policy = queue.default_queue_policy
    if policy.allow_timeout_override and not policy.default_timeout_microseconds:
        yield Problem(
            f"{model.name}: allow_timeout_override has no effect without a default timeout",
            "set default_timeout_microseconds: requests may only ask for less",
        )
    if queue.default_priority_level > queue.priority_levels:
        yield Problem(
            f"{model.name}: default_priority_level {queue.default_priority_level} is above priority_levels",
            f"set it to at most {queue.priority_levels}",
        )


def instances(subject: Subject) -> Iterator[Problem]:
    """Instance groups that start no engine, too many, or serve one request at a time."""
    for model in _readable(subject):
        groups = model.config.instance_group
        count = sum(group.count or 1 for group in groups) if groups else 1
        if model.role == "tensorrt_llm" and model.config.backend == "tensorrtllm":
            gpus = model.parameter("gpu_device_ids") or ""
            if count > 1 and len(gpus.split(";")) != count:
                yield Problem(
                    f"{model.name}: {count} instances would each load the engine on the same GPUs",
                    "set instance_group count: 1, or name each one's GPUs: gpu_device_ids 0,1;2,3",
                )
            if any(group.Kind.Name(group.kind) == "KIND_GPU" for group in groups):
                yield Problem(
                    f"{model.name}: KIND_GPU starts one engine for each GPU that Triton sees",
                    "set kind: KIND_CPU; the executor takes its GPUs itself, by gpu_device_ids",
                )
        if model.role == "tensorrt_llm_bls" and count == 1 and model.config.max_batch_size > 1:
            yield Problem(
                f"{model.name}: its one instance serves one request at a time",
                "set instance_group count to the requests that are to run at once",
            )


def _readable(subject: Subject) -> list[Model]:
    return [model for model in subject.models.values() if model.parse_error is None]


LOOKS = (
    Look("config_parses", unreadable),
    Look("placeholders", unfilled),
    Look("layout", misplaced),
    Look("backend", backends),
    Look("decoupled", transactions),
    Look("batching", batching),
    Look("instances", instances),
)
