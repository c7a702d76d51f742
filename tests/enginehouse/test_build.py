"""`enginehouse build` without a gateway: in the command's own process."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from bench.tiny_engines import TinyParts, checkpoint, spec, whole
from enginehouse.cli import app
from model_registry.manifests import to_yaml


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own, no gateway, and tiny engines. Holds `spec.yaml`."""
    for name in [name for name in os.environ if name.startswith("ENGINEHOUSE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("ENGINEHOUSE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("ENGINEHOUSE_BUILDER__MIN_FREE_DISK_GIB", "0")
    monkeypatch.setenv("ENGINEHOUSE_BUILDER__MIN_FREE_MEMORY_GIB", "0")
    monkeypatch.setattr("enginehouse.build_command.parts", lambda _: TinyParts(tmp_path, pause_s=0.0))
    checkpoint(tmp_path)
    (tmp_path / "spec.yaml").write_text(to_yaml([spec(tmp_path)]))
    return tmp_path


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})


def build(house: Path, *more: str) -> Result:
    return invoke("build", "-f", str(house / "spec.yaml"), "--runtime", "emulated", *more)


def test_an_engine_is_built_here_without_anything_else(house: Path) -> None:
    """Its manifest is printed, as `apply` takes it; it is published, and what goes on is told on stderr."""
    done = build(house)
    assert done.exit_code == 0, done.output
    engine = yaml.safe_load(done.stdout)
    assert (engine["kind"], engine["spec"]["runtime"]) == ("Engine", "emulated")
    assert whole(Path(engine["spec"]["url"]))
    assert "step 3 of 3, compile: done" in done.stderr
    assert "convert | file 0" in done.stderr


def test_what_was_built_is_found_again(house: Path) -> None:
    first, again = json.loads(build(house, "--json").stdout), build(house, "--json")
    assert json.loads(again.stdout)["url"] == first["url"]
    assert "step 3 of 3, compile: cached" in again.stderr
    assert len((house / "runs.log").read_text().split()) == 3


def test_a_dry_run_shows_the_commands_and_runs_none(house: Path) -> None:
    """With the folders in them; and which steps would be skipped."""
    shown = build(house, "--dry-run", "--cache", str(house / "cache"))
    assert shown.exit_code == 0
    assert "3 steps" in shown.stdout
    assert f"cat {house}/cache/" in shown.stdout
    assert not (house / "runs.log").exists()
    build(house, "--cache", str(house / "cache"))
    document = json.loads(build(house, "--dry-run", "--json", "--cache", str(house / "cache")).stdout)
    assert [(step["name"], step["cached"]) for step in document["steps"]] == [
        ("convert", True), ("quantize", True), ("compile", True),
    ]  # fmt: skip


def test_without_tensorrt_llm_the_missing_and_the_way_out_are_named(house: Path) -> None:
    failed = invoke("build", "-f", str(house / "spec.yaml"))
    error: Any = failed.exception
    assert error.message == "trtllm-build is not on PATH"
    assert "install TensorRT-LLM 1.2.1" in error.remedy
    assert "--runtime emulated" in error.remedy


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "nothing to build"),
        (("name",), "no gateway is known"),
        (("-f", "SPEC", "--detach", "--local"), "--detach is for builders"),
        (("-f", "SPEC", "--detach"), "no gateway is known"),
        (("-f", "SPEC", "other"), "does not hold an EngineSpec 'other'; there are: tiny"),
        (("-f", "BAD"), "cannot be used"),
        (("-f", "missing.yaml"), "cannot read missing.yaml"),
    ],
)
def test_what_cannot_be_done_is_told_before_anything_is_run(
    house: Path, arguments: tuple[str, ...], message: str
) -> None:
    (house / "bad.yaml").write_text("kind: EngineSpec\nname: x\ngpu_clas: h100\n")
    paths = {"SPEC": str(house / "spec.yaml"), "BAD": str(house / "bad.yaml")}
    failed = invoke("build", *(paths.get(one, one) for one in arguments))
    assert message in str(failed.exception)
    assert not (house / "runs.log").exists()


def test_a_cache_is_collected_by_command(house: Path) -> None:
    """Engines stay."""
    url = json.loads(build(house, "--json").stdout)["url"]
    done = invoke("builds", "gc", "--max-gib", "0")
    assert re.match(r"removed 3 steps, \d+ B; 0 B stay", done.stdout)
    assert whole(Path(url))


def test_ctrl_c_ends_a_build_here_and_the_next_goes_on(house: Path) -> None:
    """Exit status 130; the steps that were done are kept."""
    code = f"""
import enginehouse.build_command as command
from bench.tiny_engines import TinyParts
from enginehouse.cli import main
from pathlib import Path
command.parts = lambda _: TinyParts(Path({str(house)!r}), pause_s=0.0)
main()
"""
    (house / "hold-quantize").touch()
    command = [sys.executable, "-c", code, "build", "-f", str(house / "spec.yaml"), "--runtime", "emulated"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert process.stderr is not None
    told = []
    for line in process.stderr:
        told.append(line)
        if line.startswith("quantize | file 0"):
            process.send_signal(signal.SIGINT)
    process.stderr.close()
    assert process.wait() == 130, told
    assert "steps that were done are kept" in "".join(told)
    (house / "hold-quantize").unlink()
    assert build(house).exit_code == 0
    runs = [line.partition("-")[0] for line in (house / "runs.log").read_text().split()]
    assert runs == ["convert", "quantize", "quantize", "compile"]
