"""Looks at ensembles and BLS: the models that they call, and which tensor goes where.

Triton checks some of this when it loads an ensemble, in words that name no remedy, and some of it only when
a request comes (a step that never gets all of its inputs waits for ever).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from engine_builder.preflight.problems import Look, Problem
from engine_builder.preflight.subject import Model, Subject


def steps(subject: Subject) -> Iterator[Problem]:
    """Steps that call nothing that is there, and maps that name no tensor or feed none."""
    for model in subject.of_role("ensemble"):
        produced = {tensor.name: tensor.data_type for tensor in model.config.input}
        called = [step.model_name for step in model.config.ensemble_scheduling.step]
        yield from _missing_steps(subject, model, called)
        for step in model.config.ensemble_scheduling.step:
            target = subject.models.get(step.model_name)
            if target is None:
                yield Problem(
                    f"{model.name} calls {step.model_name}, which is not in the repository",
                    f"add the model, or name one of: {', '.join(sorted(subject.models))}",
                )
                produced |= dict.fromkeys(step.output_map.values(), 0)
                continue
            if target.parse_error is None:
                yield from _step(model, target, step, produced)
            types = {tensor.name: tensor.data_type for tensor in target.config.output}
            produced |= {inner: types.get(own, 0) for own, inner in step.output_map.items()}
        for tensor in model.config.output:
            if tensor.name not in produced:
                yield Problem(
                    f"{model.name}: no step writes the output {tensor.name}",
                    f"map a step's output to it: output_map {{ key: ... value: {tensor.name!r} }}",
                )


def _missing_steps(subject: Subject, model: Model, called: list[str]) -> Iterator[Problem]:
    roles = {found.role for name in called if (found := subject.models.get(name)) is not None}
    if not _is_text(model) or any(name not in subject.models for name in called):
        return
    for role in ("preprocessing", "tensorrt_llm", "postprocessing"):
        if role not in roles:
            yield Problem(f"{model.name} has no step of the kind {role}", f"add a step that calls {role}")


def _is_text(model: Model) -> bool:
    return {"text_input", "max_tokens"} <= {tensor.name for tensor in model.config.input}


def _step(model: Model, target: Model, step: Any, produced: dict[str, Any]) -> Iterator[Problem]:
    inputs = {tensor.name: tensor for tensor in target.config.input}
    outputs = {tensor.name for tensor in target.config.output}
    for own, inner in step.input_map.items():
        if own not in inputs:
            yield Problem(
                f"{model.name}: {target.name} declares no input {own}",
                f"declare {own} in {target.name}, or remove it from the step's input_map",
            )
        elif inner not in produced:
            yield Problem(
                f"{model.name}: nothing before {target.name} writes {inner}, which is its {own}",
                f"map an earlier step's output to {inner}, or declare it as an input",
            )
        elif produced[inner] and produced[inner] != inputs[own].data_type:
            yield Problem(
                f"{model.name}: {inner} and the input {own} of {target.name} are of different types",
                "give both the same data_type",
            )
    for own in step.output_map:
        if own not in outputs:
            yield Problem(
                f"{model.name}: {target.name} declares no output {own}",
                f"declare {own} in {target.name}, or remove it from the step's output_map",
            )
    unfed = [name for name, tensor in inputs.items() if not tensor.optional and name not in step.input_map]
    for name in unfed:
        yield Problem(
            f"{model.name}: the input {name} of {target.name} is required and not fed",
            f"add it to the step's input_map, or declare it optional in {target.name}",
        )


def batch_sizes(subject: Subject) -> Iterator[Problem]:
    """Ensembles whose batches are larger than those of a step."""
    for model in subject.of_role("ensemble"):
        for step in model.config.ensemble_scheduling.step:
            target = subject.models.get(step.model_name)
            if target is None or target.parse_error is not None:
                continue
            if target.config.max_batch_size < model.config.max_batch_size:
                yield Problem(
                    f"{model.name}: max_batch_size {model.config.max_batch_size} is above the "
                    f"{target.config.max_batch_size} of {target.name}",
                    "give the ensemble the least max_batch_size of its steps",
                )


def calls(subject: Subject) -> Iterator[Problem]:
    """Models that a BLS model calls and that are not there."""
    for model in subject.of_role("tensorrt_llm_bls"):
        for name, usual in (
            ("tensorrt_llm_model_name", "tensorrt_llm"),
            ("preprocessing_model_name", "preprocessing"),
            ("postprocessing_model_name", "postprocessing"),
        ):
            called = model.parameter(name) or usual
            if called not in subject.models:
                yield Problem(
                    f"{model.name} calls {called}, which is not in the repository",
                    f"set {name} to one of: {', '.join(sorted(subject.models))}",
                )


LOOKS = (
    Look("ensemble_steps", steps),
    Look("ensemble_batch_sizes", batch_sizes),
    Look("bls_calls", calls),
)
