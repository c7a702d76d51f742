"""Preflight of a packaged engine on a real Triton, and through the command line into a real registry."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from engine_builder.package import Trust, engine_of, fetch, list_published, publish, read_manifest
from engine_builder.package.signing import public_path
from engine_builder.preflight import Subject, preflight
from engine_builder.preflight.live import live, needed_bytes
from engine_builder.shape import Shape
from enginehouse.cli import app
from enginehouse.local.triton import TritonProcess
from enginehouse.local.triton_environment import ensure_environment
from model_registry.engines import Check, Engine
from model_registry.entities import Deployment, Model, ServerRef
from model_registry.store import RegistryStore
from model_registry.watcher import Watcher
from tests.engine_builder.packages import SIGNER, emulated_package, real_package, spec
from tests.engine_builder.preflight.mutations import mutate
from tests.gateway.test_admin import ADMIN, Admin, admin, watcher
from tests.model_registry.conftest import config, redis_client, redis_server, store

__all__ = ["admin", "config", "redis_client", "redis_server", "store", "watcher"]

MODELS = ("tensorrt_llm", "preprocessing", "postprocessing", "ensemble", "tensorrt_llm_bls")
TRUST = Trust.of(SIGNER)


@dataclass(frozen=True)
class Served:
    """An engine that a real Triton has loaded."""

    store_url: str
    folder: Path
    server: ServerRef
    key: Path


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    url = publish(emulated_package(folder), str(folder / "store"))
    fetch(url, folder / "engine", TRUST)
    SIGNER.save(folder / "key.pem")
    with asyncio.Runner() as runner:
        environment = runner.run(ensure_environment())
        repository = folder / "engine/serve/repository"
        process = TritonProcess("triton", environment, repository, folder / "log", load=MODELS)
        runner.run(process.start())
        try:
            runner.run(process.ready())
            server = ServerRef(http=process.http_url, grpc=process.grpc_url, metrics=process.metrics_url)
            yield Served(str(folder / "store"), folder / "engine", server, folder / "key.pem")
        finally:
            runner.run(process.stop())


def failed(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks if not check.passed}


async def test_a_packaged_engine_passes_on_the_server_that_runs_it(served: Served) -> None:
    record = await preflight(Subject.read(served.folder), TRUST, served.server)
    assert failed(list(record.checks)) == {}
    assert record.passed
    assert record.server == served.server.http
    names = [check.name for check in record.checks]
    features = read_manifest(served.folder).features
    assert {f"smoke_{feature}" for feature in features} <= set(names)
    assert names[0] == "signature"
    assert {"server_models", "server_configs", "schema", "server_runtime", "memory"} <= set(names)


@pytest.mark.parametrize("target", ["ensemble", "tensorrt_llm_bls"])
async def test_text_models_lead_to_the_engine_behind_them(served: Served, target: str) -> None:
    checks = await live(Subject.read(served.folder), served.server, target)
    (schema,) = (check for check in checks if check.name == "schema")
    assert (schema.passed, schema.detail) == (True, "tensorrt_llm speaks tensorrt_llm")


async def test_a_real_engine_is_not_served_by_an_emulator(served: Served, tmp_path: Path) -> None:
    """The server runs another engine than the one that is looked at, and says so in three checks."""
    fetch(str(real_package(tmp_path, tensor_parallel=1)), tmp_path / "engine", TRUST)
    checks = failed(await live(Subject.read(tmp_path / "engine"), served.server))
    assert "is an emulator" in checks["server_runtime"].detail
    assert "restart Triton with this repository" in checks["server_configs"].remedy


async def test_a_server_without_the_models_is_told_and_not_asked_further(
    served: Served, tmp_path: Path
) -> None:
    checks = await live(Subject.read(served.folder), served.server, "nothing")
    assert checks[-1].name == "schema"
    assert not checks[-1].passed
    nowhere = ServerRef(http="http://127.0.0.1:9")
    (only,) = await live(Subject.read(served.folder), nowhere)
    assert "cannot be reached" in only.detail or "answers neither" in only.detail


async def test_a_changed_engine_fails_its_signature_and_says_which_file(
    served: Served, tmp_path: Path
) -> None:
    package = emulated_package(tmp_path)
    fetch(str(package), tmp_path / "engine", TRUST)
    mutate(tmp_path / "engine", {"replace_text": "engine/config.json", "old": "llama", "new": "alpaca"})
    record = await preflight(Subject.read(tmp_path / "engine"), TRUST)
    assert "engine/config.json is changed" in failed(list(record.checks))["signature"].detail
    assert (record.passed, record.server) == (False, None)


def test_memory_is_that_of_one_gpu_with_one_longest_request(tmp_path: Path) -> None:
    """Llama-3-8B in BF16 (contract sheet §8): 14.96 GiB of weights, 128 KiB of cache a token."""
    shape = Shape("LlamaForCausalLM", 32, 4096, 32, 8, 128, 14336, 128256, 8192)
    manifest = read_manifest(real_package(tmp_path, lane="llmapi", lora=None, tensor_parallel=1))
    needed = needed_bytes(manifest, shape)
    assert needed == pytest.approx(14.96 * 2**30 + 512 * 128 * 1024, rel=0.001)
    assert spec().max_seq_len == 512


async def run(served: Served, admin: Admin, state: Path, *arguments: str) -> tuple[int, str]:
    """Exit status and output of a command with a gateway, a store and a trusted key."""
    where = ["--url", str(admin.make_url("/")), "--key", ADMIN, "--state-dir", str(state)]
    settings = {
        "ENGINEHOUSE_ENGINES__STORE": served.store_url,
        "ENGINEHOUSE_ENGINES__TRUSTED_KEYS": json.dumps([str(public_path(served.key))]),
        "COLUMNS": "200",
    }
    result = await asyncio.to_thread(CliRunner().invoke, app, [*arguments, *where], env=settings)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


async def test_the_command_records_what_it_found_and_the_engine_becomes_routable(
    served: Served, admin: Admin, watcher: Watcher, store: RegistryStore, tmp_path: Path
) -> None:
    (published,) = list_published(served.store_url)
    engine = engine_of(published)
    deployment = Deployment(
        name="d",
        model="depot-chat",
        engine=engine.name,
        servers=(served.server,),
        labels={"gpu_class": "cpu"},
    )
    await store.apply([Model(name="depot-chat", context_length=512), engine, deployment])

    async def stored() -> Engine:
        found = await store.get("Engine", engine.name)
        assert isinstance(found, Engine)
        return found

    status, output = await run(served, admin, tmp_path, "preflight", engine.name)
    assert status == 0, output
    assert "passed: " in output
    assert f"recorded with engine {engine.name}" in output
    assert (await stored()).routable
    assert (await stored()).preflight.server == served.server.http  # type: ignore[union-attr]

    status, output = await run(
        served, admin, tmp_path, "preflight", engine.name, "--gpu-class", "h100-sxm", "--json"
    )
    assert status == 1
    assert not (await stored()).routable
    assert '"name": "architecture"' in output

    status, output = await run(served, admin, tmp_path, "engines", "list")
    assert status == 0
    assert engine.name in output
    assert "failed 20" in output
    assert " d" in output

    status, output = await run(served, admin, tmp_path, "engines", "gc", "--keep-days", "0")
    assert f"{engine.name}: kept: a deployment refers to it" in output


async def test_what_was_not_asked_of_a_server_does_not_make_an_engine_routable(
    served: Served, admin: Admin, watcher: Watcher, store: RegistryStore, tmp_path: Path
) -> None:
    (published,) = list_published(served.store_url)
    await store.apply([engine_of(published)])
    status, output = await run(served, admin, tmp_path, "preflight", published.manifest.name)
    assert status == 0
    assert "not recorded: to become routable it has to answer" in output
    found = await store.get("Engine", published.manifest.name)
    assert isinstance(found, Engine)
    assert found.preflight is None
