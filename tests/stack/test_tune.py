"""A search on a live deployment finds the setting that is better there, and puts everything back."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from emulator.engine import EngineLimits
from emulator.triton.repository import EngineSpec, TrtEngineModels, build_emulator_repository
from enginehouse.cli import app
from enginehouse.local.triton import TritonProcess
from enginehouse.local.triton_environment import ensure_environment
from inference.control import TritonControl
from model_registry.entities import Deployment, Model, Profile, ServerRef
from model_registry.manifests import to_yaml
from tests.stack.dialects import WEIGHTS, apply, endpoints, ready_models
from tests.stack.stack import Stack, wait_until

NAME = "tuned"
STEP_MS = 40
LITTLE, MUCH = 288, 2048
"""Tokens of the KV cache: for one request at once, and for all."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerRef]:
    """A Triton whose engine keeps time: a step takes as long for one request as for eight."""
    with asyncio.Runner() as runner:
        process = runner.run(_started(tmp_path_factory.mktemp("tuned")))
        try:
            yield ServerRef(http=process.http_url, grpc=process.grpc_url, metrics=process.metrics_url)
        finally:
            runner.run(process.stop())


async def _started(folder: Path) -> TritonProcess:
    pace = {"name": "even", "source": "made up", "prefill_tokens_per_s": 1e6, "base_ms": STEP_MS}
    (folder / "pace.json").write_text(json.dumps(pace))
    limits = EngineLimits(
        max_batch_size=8, max_num_tokens=512, max_seq_len=512, max_input_len=480, kv_blocks=LITTLE // 32
    )
    engine = EngineSpec(WEIGHTS, limits, pacing=str(folder / "pace.json"), stats_check_period_ms=20)
    names = build_emulator_repository(folder / "repository", [TrtEngineModels(engine, name=NAME)])
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


@pytest.fixture(scope="module")
def http(stack: Stack, server: ServerRef) -> Iterator[httpx2.Client]:
    objects = [
        Model(name=NAME, context_length=512, tokenizer=str(WEIGHTS), default_profile="even"),
        Profile(name="even", ttft_target_s=5.0, itl_target_s=1.0, spills_to=()),
        Deployment(name=NAME, model=NAME, profile="even", target=NAME, servers=(server,)),
    ]
    with httpx2.Client(base_url=stack.origin, headers=stack.headers, timeout=60) as client:
        apply(client, stack, to_yaml(objects))
        wait_until(lambda: NAME in ready_models(client, stack), 30, "its endpoint is ready")
        yield client
        for item in reversed(objects):
            path = f"/admin/v1/objects/{type(item).__name__}/{item.name}"
            client.delete(path, headers=stack.admin_headers)


def tune(stack: Stack, *arguments: str) -> Result:
    """The command, in this process."""
    keys = {"ENGINEHOUSE_ADMIN_KEY": stack.ready["admin_key"], "ENGINEHOUSE_API_KEY": stack.key}
    environment = {"COLUMNS": "250", **keys, "ENGINEHOUSE_URL": stack.origin}
    return CliRunner().invoke(app, ["tune", *arguments], env=environment)


def kv_tokens_now(server: ServerRef) -> str:
    config = httpx2.get(f"{server.http}/v2/models/{NAME}/config").json()
    return str(config["parameters"]["max_tokens_in_paged_kv_cache"]["string_value"])


async def override(server: ServerRef, kv_tokens: int) -> None:
    async with TritonControl(server) as control:
        config = await control.config(NAME)
        config["parameters"]["max_tokens_in_paged_kv_cache"] = {"string_value": str(kv_tokens)}
        await control.unload(NAME)
        await control.load(NAME, {"config": json.dumps(config)})


def deployment(http: httpx2.Client, stack: Stack) -> dict[str, Any]:
    found: dict[str, Any] = http.get(
        f"/admin/v1/objects/Deployment/{NAME}", headers=stack.admin_headers
    ).json()["object"]
    return found


def known_kv_tokens(http: httpx2.Client, stack: Stack) -> list[int]:
    return [one["server_schema"]["kv_tokens"] for one in endpoints(http, stack) if one["deployment"] == NAME]


SHORT = (
    "-m", NAME, "--gpu-class", "cpu", "-k", f"kv_tokens={LITTLE},{MUCH}",
    "--concurrency", "1", "--concurrency", "8", "--prompt-tokens", "160", "--output-tokens", "6",
    "--seconds", "0.4",
)  # fmt: skip


def test_it_finds_that_more_kv_cache_is_better_and_puts_it_back(
    stack: Stack, http: httpx2.Client, server: ServerRef, tmp_path: Path
) -> None:
    """With little, requests run one after another; with much, eight in one step."""
    before = deployment(http, stack)
    out, journal, picture = (tmp_path / name for name in ("card.yaml", "journal.json", "front.svg"))
    files = ("--journal", str(journal), "-o", str(out), "--picture", str(picture), "--json")
    done = tune(stack, *SHORT, *files)
    assert done.exit_code == 0, (done.output, done.exception)
    found = json.loads(done.stdout)
    assert found["changed"] == {"kv_tokens": str(MUCH)}
    assert (found["confirmed"], found["clients"]) == (True, 8)
    trials = [(one["trial"]["setting"]["kv_tokens"], one["goodput"]) for one in found["trials"]]
    little, much = ([goodput for tokens, goodput in trials if tokens == str(of)] for of in (LITTLE, MUCH))
    assert max(much) > 1.5 * max(little)

    assert kv_tokens_now(server) == str(LITTLE)
    assert known_kv_tokens(http, stack) == [LITTLE]
    assert deployment(http, stack) == before
    card = yaml.safe_load(out.read_text())["spec"]["card"]
    assert (card["source"], card["gpu_class"], card["kv_tokens"]) == ("measured", "cpu", MUCH)
    assert f"kv_tokens={MUCH}" in card["about"]
    assert 0.9 * STEP_MS / 1e3 < card["step_s"] < 10 * STEP_MS / 1e3
    assert picture.read_text().startswith("<svg")
    assert len(json.loads(journal.read_text())["history"]) == len(found["trials"])

    again = tune(stack, *SHORT, "--journal", str(journal))
    assert "exists already" in str(again.exception)
    resumed = tune(stack, *SHORT, "--journal", str(journal), "--resume", "--seconds", "9")
    assert "is of another search" in str(resumed.exception)


def test_a_signal_to_end_puts_everything_back(
    stack: Stack, http: httpx2.Client, server: ServerRef, tmp_path: Path
) -> None:
    before, journal = deployment(http, stack), tmp_path / "journal.json"

    def end_it() -> None:
        wait_until(lambda: "tuning" in deployment(http, stack)["labels"], 60, "another setting is in force")
        os.kill(os.getpid(), signal.SIGTERM)

    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(end_it)
        done = tune(stack, *SHORT, "--journal", str(journal))
        ended.result()
    assert done.exit_code == 130
    said = f"stopped: everything is as it was; {journal} has the trials: --resume goes on"
    assert said in done.stderr.replace("\n", " ")
    assert kv_tokens_now(server) == str(LITTLE)
    assert deployment(http, stack) == before
    assert len(json.loads(journal.read_text())["history"]) >= 2, "from which it can be resumed"

    asyncio.run(override(server, MUCH))  # as a killed one would leave it
    assert kv_tokens_now(server) == str(MUCH)
    done = tune(stack, "--restore", str(journal))
    assert done.stdout == f"{NAME} is as it was\n", done.exception
    assert kv_tokens_now(server) == str(LITTLE)


def test_what_others_use_is_left_alone(stack: Stack, http: httpx2.Client, tmp_path: Path) -> None:
    """Until it is told to go on all the same."""
    body = {
        "model": NAME,
        "messages": [{"role": "user", "content": "Well?"}],
        "max_tokens": 200,
        "stream": True,
    }
    with http.stream("POST", "/v1/chat/completions", json={**body, "min_tokens": 200}) as others:
        assert others.status_code == 200
        done = tune(stack, *SHORT, "--journal", str(tmp_path / "journal.json"))
    assert "others use" in str(done.exception)
