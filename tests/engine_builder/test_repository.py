"""Model repositories on disk: every config parses, and says what the tables say."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from engine_builder.repository import (
    EnsembleStep,
    InstanceGroup,
    ModelSpec,
    QueuePolicy,
    Schema,
    TensorSpec,
    ensemble_steps,
    schemas,
    write_repository,
)

SCHEMAS = {
    "bare": schemas.tensorrt_llm("1.x"),
    "bare_019": schemas.tensorrt_llm("0.19"),
    "preprocessing": schemas.PREPROCESSING,
    "postprocessing": schemas.POSTPROCESSING,
    "ensemble": schemas.ensemble("1.x"),
    "ensemble_019": schemas.ensemble("0.19"),
    "bls": schemas.tensorrt_llm_bls("1.x"),
    "llmapi": schemas.llmapi("newest"),
}


def _written(root: Path, spec: ModelSpec) -> model_config_pb2.ModelConfig:
    write_repository(root, [spec])
    text = (root / spec.name / "config.pbtxt").read_text()
    return text_format.Parse(text, model_config_pb2.ModelConfig())


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_config_says_what_its_table_says(name: str, tmp_path: Path) -> None:
    schema = SCHEMAS[name]
    config = _written(tmp_path, ModelSpec(name, schema, backend="python", max_batch_size=8))
    assert [
        _read(tensor, optional=tensor.optional, ragged=tensor.allow_ragged_batch) for tensor in config.input
    ] == [*schema.inputs]
    assert [_read(tensor) for tensor in config.output] == [*schema.outputs]


def test_a_real_engine_gets_its_backend_parameters_and_queue(tmp_path: Path) -> None:
    spec = ModelSpec(
        "chat_engine",
        schemas.tensorrt_llm("1.x"),
        backend="tensorrtllm",
        max_batch_size=64,
        decoupled=True,
        parameters={"gpt_model_type": "inflight_fused_batching", "gpu_device_ids": "0,1"},
        instances=InstanceGroup(1, "KIND_CPU"),
        queue=QueuePolicy((64,), max_queue_delay_us=100, max_queue_size=128),
    )
    config = _written(tmp_path, spec)
    assert (config.backend, config.max_batch_size) == ("tensorrtllm", 64)
    assert config.model_transaction_policy.decoupled
    assert config.parameters["gpu_device_ids"].string_value == "0,1"
    assert config.dynamic_batching.default_queue_policy.max_queue_size == 128
    assert [path.name for path in (tmp_path / "chat_engine" / "1").iterdir()] == []


def test_python_models_get_their_file_and_further_texts(tmp_path: Path) -> None:
    source = tmp_path / "source.py"
    source.write_text("X = 1\n")
    spec = ModelSpec(
        "m", schemas.llmapi("newest"), "python", model_file=source, files={"model.yaml": "model: x\n"}
    )
    write_repository(tmp_path / "repo", [spec])
    assert (tmp_path / "repo/m/1/model.py").read_text() == "X = 1\n"
    assert (tmp_path / "repo/m/1/model.yaml").read_text() == "model: x\n"


def test_dialects_differ_in_exactly_the_known_names() -> None:
    new = {tensor.name for tensor in schemas.tensorrt_llm("1.x").inputs}
    old = {tensor.name for tensor in schemas.tensorrt_llm("0.19").inputs}
    assert new - old == {"min_tokens", "seed", "return_num_input_tokens", "return_num_output_tokens"}
    assert old - new == {"min_length", "random_seed"}


@pytest.mark.parametrize("dialect", ["1.x", "0.19"])
def test_ensemble_steps_name_only_tensors_that_exist_and_feed_all_required_ones(
    dialect: schemas.Dialect,
) -> None:
    steps = ensemble_steps(preprocessing="a", tensorrt_llm="b", postprocessing="c", dialect=dialect)
    models = {"a": schemas.PREPROCESSING, "b": schemas.tensorrt_llm(dialect), "c": schemas.POSTPROCESSING}
    known = {tensor.name for tensor in schemas.ensemble(dialect).inputs}
    used: set[str] = set()
    for step in steps:
        schema = models[step.model_name]
        assert step.input_map.keys() <= {tensor.name for tensor in schema.inputs}
        assert step.output_map.keys() <= {tensor.name for tensor in schema.outputs}
        assert {tensor.name for tensor in schema.inputs if not tensor.optional} <= step.input_map.keys()
        assert set(step.input_map.values()) <= known
        used |= set(step.input_map.values())
        known |= set(step.output_map.values())
    assert {tensor.name for tensor in schemas.ensemble(dialect).inputs} <= used
    assert {tensor.name for tensor in schemas.ensemble(dialect).outputs} <= known


def test_models_of_one_name_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    twice = [ModelSpec("m", schemas.llmapi("newest"), "python")] * 2
    with pytest.raises(ValueError, match="twice: m"):
        write_repository(tmp_path / "repo", twice)
    assert not (tmp_path / "repo").exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "../x", "backend": "python"}, "folder name"),
        ({"name": "m"}, "give exactly one"),
        ({"name": "m", "backend": "python", "steps": (EnsembleStep("a", {}, {}),)}, "give exactly one"),
        ({"name": "m", "backend": "python", "max_batch_size": -1}, "must not be negative"),
        ({"name": "m", "backend": "python", "queue": QueuePolicy((1,))}, "queue policy needs"),
    ],
)
def test_a_model_that_makes_no_sense_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelSpec(schema=Schema((), ()), **fields)  # type: ignore[arg-type]


def _read(
    tensor: model_config_pb2.ModelInput | model_config_pb2.ModelOutput,
    optional: bool = False,
    ragged: bool = False,
) -> TensorSpec:
    dtype = model_config_pb2.DataType.Name(tensor.data_type).removeprefix("TYPE_")
    reshape = tuple(tensor.reshape.shape) if tensor.HasField("reshape") else None
    return TensorSpec(tensor.name, dtype, tuple(tensor.dims), optional, reshape, ragged)
