"""The schemas as a real Triton reports them, and the metrics that the engine publishes there."""

from __future__ import annotations

from typing import Any

from emulator.triton.repository import EmulatorModels, model_specs
from engine_builder.repository import TensorSpec
from tests.emulator.triton.server import Server


async def test_triton_reports_every_tensor_as_the_tables_have_it(
    server: Server, all_models: list[EmulatorModels]
) -> None:
    specs = [spec for models in all_models for spec in model_specs(models)]
    for spec in specs:
        config = await server.get(f"/v2/models/{spec.name}/config")
        assert [_seen(tensor) for tensor in config["input"]] == [
            _stated(tensor) for tensor in spec.schema.inputs
        ]
        assert [_seen(tensor)[:3] for tensor in config["output"]] == [
            _stated(tensor)[:3] for tensor in spec.schema.outputs
        ]
        assert config["max_batch_size"] == spec.max_batch_size
        assert config.get("model_transaction_policy", {}).get("decoupled", False) == (
            spec.decoupled or bool(spec.steps)
        )


async def test_the_metric_families_have_the_real_names_and_labels(server: Server) -> None:
    assert (
        await server.gauge("nv_trt_llm_request_metrics", model="old", request_type="max", version="1") == 64
    )
    kv_max = await server.gauge("nv_trt_llm_kv_cache_block_metrics", model="old", kv_cache_block_type="max")
    assert kv_max == 1024
    memory = await server.gauge("nv_trt_llm_runtime_memory_metrics", model="old", memory_type="cpu")
    assert memory > 0
    await server.gauge("nv_trt_llm_general_metrics", model="old", general_type="iteration_counter")
    await server.gauge(
        "nv_trt_llm_inflight_batcher_metrics", inflight_batcher_specific_metric="generation_requests"
    )


def _seen(tensor: dict[str, Any]) -> tuple[Any, ...]:
    dims = tuple(int(dim) for dim in tensor["dims"])
    dtype = tensor["data_type"].removeprefix("TYPE_")
    return tensor["name"], dtype, dims, tensor.get("optional", False), tensor.get("allow_ragged_batch", False)


def _stated(tensor: TensorSpec) -> tuple[Any, ...]:
    return tensor.name, tensor.dtype, tensor.dims, tensor.optional, tensor.ragged
