"""What profiles say of Triton's queue is in the configs, and a real Triton loads and serves them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from pydantic import ValidationError

from emulator.triton.repository import (
    EmulatorModels,
    EncoderModels,
    EngineSpec,
    LlmApiModels,
    TrtEngineModels,
    under_profile,
)
from engine_builder.repository.queues import batched_queue, in_flight_queue
from model_registry.entities import Profile
from model_registry.errors import ManifestErrors
from model_registry.knobs import BUILT_IN
from model_registry.manifests import parse_manifests, to_yaml
from model_registry.triton_queue import TritonQueue
from tests.emulator.triton.conftest import MakeServer
from tests.emulator.triton.server import Server, bare_body
from tests.emulator.triton.test_encoder_model import id_tensors

EVERYTHING = TritonQueue(
    max_queue_size=7,
    timeout_s=1.5,
    timeout_action="delay",
    allow_timeout_override=True,
    priority_levels=3,
    default_priority_level=2,
    preferred_batch_sizes=(4, 8, 500),
    max_queue_delay_us=300,
    batch_scheduler_policy="max_utilization",
)


def _models(engine: EngineSpec) -> list[EmulatorModels]:
    queues = {name: knobs.triton for name, knobs in BUILT_IN.items()} | {"everything": EVERYTHING}
    return [
        under_profile(models, queue)
        for name, queue in queues.items()
        for models in (
            TrtEngineModels(engine, name=f"bare-{name}"),
            EncoderModels(engine.model_dir, name=f"encoder-{name}"),
        )
    ]


async def _batching(server: Server, model: str) -> dict[str, Any]:
    """What Triton tells of a model's batcher and its queue, numbers as such."""
    told = (await server.get(f"/v2/models/{model}/config"))["dynamic_batching"]
    flat = {**told, **told["default_queue_policy"]}
    return {name: int(value) if str(value).isdigit() else value for name, value in flat.items()}


async def test_a_real_triton_loads_what_every_profile_says(
    make_server: MakeServer, engine: EngineSpec, tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    """Of one that sets everything, Triton tells every setting back, and answers by it."""
    process = make_server(tmp_path, _models(engine))
    await process.start()
    try:
        await process.ready()
        server = Server(process, session)
        queue = {
            "timeout_action": "DELAY",
            "default_timeout_microseconds": 1_500_000,
            "allow_timeout_override": True,
            "max_queue_size": 7,
            "priority_levels": 3,
            "default_priority_level": 2,
        }
        encoder = await _batching(server, "encoder-everything")
        batcher = {"preferred_batch_size": [4, 8], "max_queue_delay_microseconds": 300}
        assert encoder == encoder | queue | batcher
        bare = await _batching(server, "bare-everything")
        assert bare == bare | queue | {"preferred_batch_size": [64]}
        assert bare.get("max_queue_delay_microseconds", 0) == 0
        config = await server.get("/v2/models/bare-everything/config")
        assert config["parameters"]["batch_scheduler_policy"]["string_value"] == "max_utilization"
        delays = [
            (await _batching(server, f"encoder-{name}")).get("max_queue_delay_microseconds", 0)
            for name in ("latency", "balanced", "throughput")
        ]
        assert delays == [0, 0, 2000]
        for name in (*BUILT_IN, "everything"):
            _, seen = await server.stream(f"bare-{name}", bare_body(3, min_tokens=3))
            assert len(seen) == 3
    finally:
        await process.stop()


async def test_a_full_queue_of_triton_refuses(
    make_server: MakeServer, engine: EngineSpec, tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    """One waits, as the profile says; those beyond it are told so at once, and the others are answered."""
    queue = TritonQueue(max_queue_size=1)
    process = make_server(tmp_path, [under_profile(EncoderModels(engine.model_dir, max_batch_size=1), queue)])
    await process.start()
    try:
        await process.ready()
        body = {"inputs": id_tensors([[1] * 500], "INT64")}
        server = Server(process, session)
        told = await asyncio.gather(*(server.post("/v2/models/encoder/infer", body) for _ in range(24)))
        refused = [answer for status, answer in told if status != 200]
        assert 0 < len(refused) < 24
        assert all("maximum queue size" in str(answer) for answer in refused)
    finally:
        await process.stop()


def test_only_what_fits_a_model_is_asked_of_it(engine: EngineSpec) -> None:
    """Preferred sizes above a model's own are left out; in-flight batching never waits."""
    assert batched_queue(EVERYTHING, 6).preferred_batch_sizes == (4,)
    assert batched_queue(EVERYTHING, 2).preferred_batch_sizes == (2,)
    assert in_flight_queue(EVERYTHING, 64).max_queue_delay_us == 0
    assert batched_queue(TritonQueue(priority_levels=5), 8).default_priority_level == 5
    llmapi = LlmApiModels(engine)
    assert under_profile(llmapi, EVERYTHING) is llmapi


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"allow_timeout_override": True}, "needs timeout_s"),
        ({"default_priority_level": 1}, "one of priority_levels"),
        ({"priority_levels": 2, "default_priority_level": 3}, "one of priority_levels"),
        ({"max_queue_size": 0}, "greater than or equal to 1"),
        ({"preferred_batch_size": [1]}, "Extra inputs"),
    ],
)
def test_settings_that_disagree_are_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        TritonQueue.model_validate(fields)


def test_a_profile_that_changes_one_setting_keeps_the_rest() -> None:
    changed = Profile.model_validate({"name": "throughput", "triton": {"max_queue_size": 9}})
    assert changed.triton.max_queue_size == 9
    assert changed.triton.max_queue_delay_us == BUILT_IN["throughput"].triton.max_queue_delay_us
    own = Profile.model_validate({"name": "night", "triton": {"max_queue_size": 9}})
    assert own.triton == TritonQueue(max_queue_size=9)


def test_a_profiles_manifest_keeps_its_settings_and_names_what_is_wrong_with_them() -> None:
    head = "kind: Profile\nname: night\ntriton: "
    [night] = parse_manifests([("f.yaml", head + "{timeout_s: 2, preferred_batch_sizes: [4, 8]}\n")])
    assert isinstance(night, Profile)
    assert parse_manifests([("f.yaml", to_yaml([night]))]) == [night]
    with pytest.raises(ManifestErrors) as caught:
        parse_manifests([("f.yaml", head + "{max_queue: 2, priority_levels: 0}\n")])
    fields = {error.field: str(error) for error in caught.value.errors}
    assert "did you mean 'max_queue_size'?" in fields["triton.max_queue"]
    assert "triton.priority_levels" in fields
