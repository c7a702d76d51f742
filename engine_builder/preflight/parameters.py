"""Looks at the parameters of the `tensorrt_llm` model: names that it reads, values that it takes.

Source: contract sheet §1.2. The backend itself passes over names it does not know and takes its default for
a decoding mode that is none, with a line in its log at most.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping

from engine_builder.contract.check import allowed
from engine_builder.contract.documents import TENSORRT_LLM_PARAMETERS
from engine_builder.contract.options import Option, Table, text
from engine_builder.preflight.problems import Look, Problem
from engine_builder.preflight.subject import EMULATOR, Model, Subject
from engine_builder.repository.lookahead import Lookahead, sizes_for

_RENAMED_VALUES: Mapping[tuple[str, str], str] = {
    ("decoding_mode", "top_p_top_k"): "set decoding_mode to top_k_top_p",
    ("batch_scheduler_policy", "guaranteed_completion"): "set batch_scheduler_policy to guaranteed_no_evict",
}
_FLAGS: Mapping[str, tuple[Option, ...]] = {
    "preprocessing": (text("add_special_tokens", kind="bool"),),
    "postprocessing": (text("skip_special_tokens", kind="bool"),),
    "tensorrt_llm_bls": (text("accumulate_tokens", kind="bool"),),
}


def names(subject: Subject) -> Iterator[Problem]:
    """Parameters that nothing reads."""
    for model in subject.of_role("tensorrt_llm"):
        for name in sorted(model.config.parameters):
            if not name.startswith(EMULATOR) and TENSORRT_LLM_PARAMETERS.find(name) is None:
                yield Problem(
                    f"{model.name}: parameter {name} is not read by the backend",
                    instead(TENSORRT_LLM_PARAMETERS, name),
                )


def values(subject: Subject) -> Iterator[Problem]:
    """Values that the backend refuses, or passes over for its default."""
    for model in subject.models.values():
        if model.role == "tensorrt_llm":
            for option in TENSORRT_LLM_PARAMETERS.options:
                if option.name != "decoding_mode":
                    yield from _complaint(model, option)
        for flag in _FLAGS.get(model.role or "", ()):
            yield from _complaint(model, flag)


def decoding_mode(subject: Subject) -> Iterator[Problem]:
    """A decoding mode that is none, lacks what it needs, or is not what the engine was built for."""
    for model in subject.of_role("tensorrt_llm"):
        wrong = list(_complaint(model, _option("decoding_mode")))
        yield from wrong
        mode = model.parameter("decoding_mode")
        if wrong or mode is None:
            continue
        width = int(_number(model.parameter("max_beam_width")) or 1)
        if mode == "beam_search" and width == 1:
            yield Problem(
                f"{model.name}: beam_search with max_beam_width 1", "set decoding_mode to top_k_top_p"
            )
        if mode.startswith("top") and width > 1:
            yield Problem(
                f"{model.name}: {mode} with max_beam_width {width}", "set max_beam_width to 1, or beam_search"
            )
        if mode in ("top_k", "top_p"):
            other = "top_p" if mode == "top_k" else "top_k"
            yield Problem(
                f"{model.name}: decoding_mode {mode} leaves clients' {other} without effect",
                "set decoding_mode to top_k_top_p",
            )
        yield from _speculative(subject, model, mode)


_BUILT: Mapping[str, str] = {
    "MEDUSA": "medusa",
    "LOOKAHEAD_DECODING": "lookahead",
    "EXPLICIT_DRAFT_TOKENS": "redrafter",
    "EAGLE": "eagle",
}
"""Decoding mode by the `speculative_decoding_mode` of a build."""


def _speculative(subject: Subject, model: Model, mode: str) -> Iterator[Problem]:
    built = str(subject.build.get("speculative_decoding_mode") or "NONE").upper()
    wanted = _BUILT.get(built)
    if subject.build and wanted != (mode if mode in _BUILT.values() else None):
        yield Problem(
            f"{model.name}: decoding_mode {mode}, and an engine that was built with "
            f"speculative_decoding_mode {built}",
            f"set decoding_mode to {wanted or 'top_k_top_p'}, or build the engine for {mode}",
        )
    if mode == "lookahead":
        yield from _lookahead(subject, model)


def _lookahead(subject: Subject, model: Model) -> Iterator[Problem]:
    names = ("lookahead_window_size", "lookahead_ngram_size", "lookahead_verification_set_size")
    sizes = [model.parameter(name) for name in names]
    if missing := [name for name, size in zip(names, sizes, strict=True) if size is None]:
        yield Problem(f"{model.name}: lookahead without {', '.join(missing)}", "give all three sizes")
        return
    built = subject.build.get("max_draft_len")
    numbers = [int(size) for size in sizes if size is not None and size.isdigit()]
    if len(numbers) != len(names) or not isinstance(built, int) or built < 1:
        return
    asked = Lookahead(*numbers)
    if asked.draft_tokens != built:
        fitting, given = (", ".join(map(str, sizes)) for sizes in (sizes_for(built), asked))
        yield Problem(
            f"{model.name}: lookahead sizes {given} take {asked.draft_tokens} draft tokens, and the engine "
            f"was built for {built}",
            f"set window, n-gram and verification set to {fitting}, or build with "
            f"--max_draft_len {asked.draft_tokens}",
        )


def model_type(subject: Subject) -> Iterator[Problem]:
    """Static batching, whose runtime is gone."""
    for model in subject.of_role("tensorrt_llm"):
        if (model.parameter("gpt_model_type") or "").upper() == "V1":
            yield Problem(
                f"{model.name}: gpt_model_type V1 is static batching, whose runtime 0.20 dropped",
                "set gpt_model_type to inflight_fused_batching",
            )


def orchestrator(subject: Subject) -> Iterator[Problem]:
    """GPUs and participants that do not fit the engine's ranks."""
    mapping = subject.pretrained.get("mapping")
    world = mapping.get("world_size") if isinstance(mapping, dict) else None
    for model in subject.of_role("tensorrt_llm"):
        for name in ("gpu_device_ids", "participant_ids"):
            value = model.parameter(name)
            if value is None or not isinstance(world, int) or allowed(_option(name), value) is not None:
                continue
            wrong = [part for part in value.split(";") if len(part.split(",")) != world]
            if wrong:
                yield Problem(
                    f"{model.name}: {name} {value} has {len(wrong[0].split(','))} where the engine has "
                    f"{world} ranks",
                    f"name {world} for each instance, with `;` between instances",
                )


def instead(table: Table, name: str) -> str:
    """What to do about a name that a table does not have."""
    absent = table.absence(name)
    if absent is not None and absent.remedy:
        return absent.remedy
    near = difflib.get_close_matches(name, [option.name for option in table.options], 1, 0.75)
    return f"rename it to {near[0]}" if near else "remove it"


def _option(name: str) -> Option:
    found = TENSORRT_LLM_PARAMETERS.find(name)
    assert found is not None
    return found


def _complaint(model: Model, option: Option) -> Iterator[Problem]:
    name, value = option.name, model.parameter(option.name)
    right = None if value is None else allowed(option, value)
    if value is not None and right is not None:
        remedy = _RENAMED_VALUES.get((name, value), f"set {name} to {right}")
        yield Problem(f"{model.name}: {name} is {value!r}, which is not allowed", remedy)


def _number(value: str | None) -> float | None:
    try:
        return None if value is None else float(value)
    except ValueError:
        return None


LOOKS = (
    Look("parameter_names", names),
    Look("parameter_values", values),
    Look("gpt_model_type", model_type),
    Look("decoding_mode", decoding_mode),
    Look("gpu_device_ids", orchestrator),
)
