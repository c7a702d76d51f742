"""What was measured of a model is kept with the engine that its deployment has loaded."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from click.testing import Result
from typer.testing import CliRunner

from enginehouse.cli import app
from model_registry.engines import Engine, PreflightRecord
from model_registry.entities import Deployment, Model, ServerRef
from model_registry.manifests import to_yaml
from tests.stack.dialects import WEIGHTS, apply, ready_models
from tests.stack.stack import Stack, wait_until

NAME = "judged"
AT = datetime.datetime(2026, 11, 29, tzinfo=datetime.UTC)


@pytest.fixture
def published(tmp_path: Path) -> Path:
    folder = tmp_path / "published"
    folder.mkdir()
    return folder


@pytest.fixture
def http(stack: Stack, published: Path) -> Iterator[httpx2.Client]:
    """With an engine, which one of the demo's models stands in for."""
    engine = Engine(
        name="judged-0", spec=NAME, digest="0" * 64, lane="vllm", runtime="emulated", version="0.11",
        gpu_class="cpu", precision="fp8", url=str(published), manifest_sha256="0" * 64, built_at=AT,
        preflight=PreflightRecord(passed=True, at=AT),
    )  # fmt: skip
    server = ServerRef.model_validate(stack.ready["triton"][1])
    objects = [
        engine,
        Model(name=NAME, context_length=1024, tokenizer=str(WEIGHTS)),
        Deployment(name=NAME, model=NAME, target="siding-chat", engine=engine.name, servers=(server,)),
    ]
    with httpx2.Client(base_url=stack.origin, headers=stack.headers, timeout=60) as client:
        apply(client, stack, to_yaml(objects))
        wait_until(lambda: NAME in ready_models(client, stack), 30, "its endpoint is ready")
        yield client
        for item in reversed(objects):
            path = f"/admin/v1/objects/{type(item).__name__}/{item.name}"
            client.delete(path, headers=stack.admin_headers)


def invoke(stack: Stack, *arguments: str) -> Result:
    keys = {"ENGINEHOUSE_ADMIN_KEY": stack.ready["admin_key"], "ENGINEHOUSE_API_KEY": stack.key}
    environment = {"COLUMNS": "200", **keys, "ENGINEHOUSE_URL": stack.origin}
    return CliRunner().invoke(app, list(arguments), env=environment)


def test_both_are_kept(stack: Stack, http: httpx2.Client, published: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    questions = {"What is the capital of France?": "Paris", "What colour is snow?": "white"}
    lines = (json.dumps({"prompt": prompt, "answer": answer}) for prompt, answer in questions.items())
    prompts.write_text("\n".join(lines))
    asked = ("quality", "--baseline", "siding-chat", "--candidate", NAME, "--prompts", str(prompts))
    judged = invoke(stack, *asked, "--save", "--json")
    assert judged.exit_code == 0, (judged.output, judged.exception)
    told = json.loads(judged.stdout)
    assert told["summary"]["by_tokens"], "vLLM tells its tokens"
    assert told["summary"]["mean_kl"] == pytest.approx(0, abs=1e-6)
    found: dict[str, Any] = http.get("/admin/v1/objects/Engine/judged-0", headers=stack.admin_headers).json()[
        "object"
    ]
    assert found["quality"]["passed"]
    assert (found["quality"]["baseline"], found["quality"]["prompts"]) == ("siding-chat", 2)
    assert found["preflight"]["passed"], "and nothing else of it has changed"

    short = ("--rate", "10", "--seconds", "1", "--prompt-tokens", "40", "--output-tokens", "4")
    loaded = invoke(stack, "loadtest", "-m", NAME, *short, "--driver", "own", "--save", "--json")
    assert loaded.exit_code == 0, (loaded.output, loaded.exception)
    (kept,) = Path(f"{published}.results").glob("loadtest-*.json")
    assert json.loads(kept.read_text())["targets"] == {"ttft_s": 2.0, "itl_s": 0.05}, "the profile's"
    assert list(published.iterdir()) == [], "what is published stays as it was signed"
    none = invoke(stack, *asked[:3], "--candidate", "depot-chat", *asked[5:], "--save")
    assert "knows no one engine" in str(none.exception)
