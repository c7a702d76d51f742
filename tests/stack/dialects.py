"""Model servers beside a stack: a real Triton with what the demo lacks, and an OpenAI-HTTP upstream."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from emulator.engine import EngineLimits
from emulator.triton.repository import (
    EncoderModels,
    EngineSpec,
    LlmApiModels,
    TextModels,
    TrtEngineModels,
    VllmModels,
    build_emulator_repository,
)
from enginehouse.local.ports import free_port
from enginehouse.local.triton import TritonProcess
from enginehouse.local.triton_environment import ensure_environment
from model_registry.entities import ServerRef
from tests.stack.stack import ROOT, Stack, wait_until

WEIGHTS = ROOT / "emulator" / "models" / "depot-chat"
CHATS = {
    "bare-019": ("old", "tensorrt_llm"),
    "bls-accumulating": ("old_bls", "tensorrt_llm_bls"),
    "llmapi-1x": ("old_words", "llmapi"),
}
"""Model name -> its target on `dialect_server`, and its lane."""


@contextmanager
def dialect_server(folder: Path) -> Iterator[ServerRef]:
    """Older dialects, BLS that accumulates, encoders; stopped when the block ends."""
    with asyncio.Runner() as runner:
        process = runner.run(_started(folder))
        try:
            yield ServerRef(http=process.http_url, grpc=process.grpc_url, metrics=process.metrics_url)
        finally:
            runner.run(process.stop())


async def _started(folder: Path) -> TritonProcess:
    limits = EngineLimits(
        max_batch_size=8,
        max_num_tokens=512,
        max_seq_len=1024,
        max_input_len=480,
        kv_blocks=256,
        max_lora_rank=8,
    )
    engine = EngineSpec(
        WEIGHTS, limits, cancellation_check_period_ms=20, stats_check_period_ms=20, guided_decoding=True
    )
    older = TextModels(
        "old_text", "old_before", "old_after", bls="old_bls", bls_instances=1, accumulate_tokens=True
    )
    models = [
        TrtEngineModels(engine, name="old", dialect="0.19", text=older),
        LlmApiModels(engine, name="old_words", dialect="1.x"),
        VllmModels(engine, name="vllm_vectors", task="embed"),
        EncoderModels(WEIGHTS, name="token_vectors", kind="tokens", id_type="INT32"),
        EncoderModels(WEIGHTS, name="text_vectors", kind="text"),
    ]
    names = build_emulator_repository(folder / "repository", models)
    process = TritonProcess(
        "triton", await ensure_environment(), folder / "repository", folder / "log", load=names
    )
    await process.start()
    try:
        await process.ready()
    except BaseException:
        await process.stop()
        raise
    return process


@contextmanager
def openai_upstream(log: Path, **models: Path) -> Iterator[ServerRef]:
    """An OpenAI-HTTP server of these models, by name; stopped when the block ends."""
    port = free_port()
    command = [sys.executable, "-m", "emulator.openai_server", "--port", str(port)]
    for name, folder in models.items():
        command += ["--name", name, "--model-dir", str(folder)]
    with log.open("wb") as sink:
        process = subprocess.Popen(command, cwd=ROOT, stdout=sink, stderr=sink)
    try:
        wait_until(lambda: _answers(f"http://127.0.0.1:{port}/health"), 30, "the upstream answers")
        yield ServerRef(http=f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait(20)


def _answers(url: str) -> bool:
    try:
        return httpx2.get(url).status_code == 200
    except httpx2.HTTPError:
        return False


def apply(client: httpx2.Client, stack: Stack, manifest: str) -> None:
    """Apply YAML through the admin API."""
    body = {"files": [{"name": "dialects.yaml", "text": manifest}]}
    applied = client.post("/admin/v1/apply", json=body, headers=stack.admin_headers)
    assert applied.status_code == 200, applied.text


def endpoints(client: httpx2.Client, stack: Stack) -> list[dict[str, Any]]:
    """Every endpoint that is registered."""
    answer = client.get("/admin/v1/objects/endpoints", headers=stack.admin_headers).json()
    found: list[dict[str, Any]] = answer["items"] if isinstance(answer, dict) else answer
    return found


def ready_models(client: httpx2.Client, stack: Stack) -> set[str]:
    """Names of the models that have an endpoint which is ready."""
    return {one["model"] for one in endpoints(client, stack) if one["state"] == "ready"}
