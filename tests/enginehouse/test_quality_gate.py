"""Weights that were really quantized, beside those that were not: eight bits pass the gate, three do not."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from aiohttp.test_utils import TestServer
from click.testing import Result
from typer.testing import CliRunner

from emulator.engine.weights import Weights
from emulator.openai_server import ServedModel, create_app
from engine_builder.quality.prompts import SHIPPED
from enginehouse.cli import app

HOUSE = Path(__file__).parents[2] / "emulator" / "models" / "house-chat"


def quantized(bits: int, folder: Path) -> Path:
    """The house's weights, each column of a matrix rounded to so many bits."""
    weights = Weights.load(HOUSE)
    for array in weights.arrays.values():
        if array.ndim == 2:
            scale = np.abs(array).max(axis=0) / (2 ** (bits - 1) - 1)
            array[:] = np.round(array / scale) * scale
    weights.save(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(HOUSE / name, folder / name)
    return folder


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[str]:
    """The base URL of a server with all three."""
    folders = {"whole": HOUSE, "int8": quantized(8, tmp_path / "8"), "int3": quantized(3, tmp_path / "3")}
    models = [ServedModel.load(name, folder) for name, folder in folders.items()]
    async with TestServer(create_app(models)) as running:
        yield f"http://127.0.0.1:{running.port}"


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    """Every third of those that come along."""
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(SHIPPED.read_text().splitlines(keepends=True)[::3]))
    return path


async def gate(server: str, candidate: str, *arguments: str) -> Result:
    command = ["quality", "--baseline", f"{server}#whole", "--candidate", f"{server}#{candidate}", *arguments]
    return await asyncio.to_thread(CliRunner().invoke, app, command, env={"COLUMNS": "200"})


async def test_eight_bits_pass_and_three_fail_with_examples(
    server: str, prompts: Path, tmp_path: Path
) -> None:
    fine = await gate(server, "int8", "--prompts", str(prompts), "--json")
    assert fine.exit_code == 0, fine.output
    told = json.loads(fine.stdout)
    assert told["summary"]["agreement"]["value"] > 0.9
    assert told["summary"]["baseline_accuracy"] > 0.7
    assert (told["verdict"]["passed"], told["verdict"]["sure"]) == (True, False)
    assert "too few" in told["verdict"]["reasons"][0]

    report = tmp_path / "report.md"
    broken = await gate(server, "int3", "--prompts", str(prompts), "-o", str(report))
    assert broken.exit_code == 1
    assert "accuracy fell by" in broken.stdout
    assert "**lost**" in report.read_text()

    strict = await gate(server, "int8", "--prompts", str(prompts), "--strict")
    assert strict.exit_code == 1, "20 prompts cannot show that nothing was lost"


async def test_what_cannot_be_asked_is_said(server: str, tmp_path: Path) -> None:
    unknown = await gate(server, "nobody")
    assert isinstance(unknown.exception, Exception)
    assert "nobody" in str(unknown.exception)
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "Well?"}\n')
    silent = await gate(server, "int8", "--prompts", str(path))
    assert "no prompt has a known answer" in str(silent.exception)
    judged = await gate(server, "int8", "--prompts", str(path), "--min-agreement", "0.5")
    assert judged.exit_code == 0, judged.output
