"""`enginehouse plan`: from a manifest or a folder to figures, files and reasons."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from engine_builder.checkpoint import Checkpoint
from engine_builder.identity import DECIDED
from engine_builder.steps import Tools, build_steps
from enginehouse.cli import app
from enginehouse.errors import CommandError
from model_registry.engine_specs import EngineSpec
from model_registry.manifests import parse_manifests

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples" / "engines").glob("*.yaml"))
LLAMA_8B = str(ROOT / "examples" / "engines" / "configs" / "llama-3-8b")


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the examples' paths begin."""
    monkeypatch.chdir(ROOT)


def planned(*arguments: str) -> str:
    """What it prints. Raises what the command raises."""
    command = ["plan", "--by", "roofline", *arguments]
    run = CliRunner().invoke(app, command, catch_exceptions=False)
    assert run.exit_code == 0, run.output
    return run.stdout


def figures(*arguments: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(planned("--json", *arguments))
    return told


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_planned(example: Path, tmp_path: Path) -> None:
    """Each fits its GPUs, meets its targets, and keeps what it says when it is resolved."""
    out = tmp_path / "resolved.yaml"
    told = figures("-f", str(example), "--out", str(out))
    chosen = told["lanes"][0]["chosen"]
    assert chosen["card"]["goodput"]["requests_per_s"] > 0
    assert chosen["memory"]["kv_bytes"] > 0
    assert not [one for one in chosen["findings"] if one["severity"] != "note"]
    (asked,) = parse_manifests([("asked", example.read_text())])
    (resolved,) = parse_manifests([("resolved", out.read_text())])
    assert isinstance(asked, EngineSpec)
    assert isinstance(resolved, EngineSpec)
    for name in EngineSpec.model_fields:
        if (said := getattr(asked, name)) is not None:
            assert getattr(resolved, name) == said, name
    assert [name for name in DECIDED if getattr(resolved, name) is None] == []
    steps = build_steps(resolved, Checkpoint.open(resolved.checkpoint), "0" * 64, Tools.find("emulated"))
    assert steps[-1].name == ("compile" if resolved.lane == "trt-engine" else "launch")


def test_the_examples_are_those_that_were_promised() -> None:
    told = {path.stem: yaml.safe_load(path.read_text())["spec"] for path in EXAMPLES}
    sizes = {
        name: (one.get("max_batch_size"), one["workload"]["input_tokens"], one["workload"]["output_tokens"])
        for name, one in told.items()
    }
    assert sizes["llama-3-8b"] == (64, 2048, 512)
    assert sizes["llama-3-8b-fp8"] == (128, 4096, 1024)
    assert sizes["llama-3-70b-tp4"] == (64, 8192, 2048)
    assert {one["lane"] for one in told.values()} == {"trt-engine", "llmapi", "vllm"}


def test_a_folder_with_a_config_suffices() -> None:
    shown = planned("--checkpoint", LLAMA_8B, "--gpu-class", "h100-sxm", "--requests-per-s", "40")
    for wanted in (
        "llama-3-8b: LlamaForCausalLM, 8.0 B parameters, on h100-sxm",
        "2,048 tokens in, 512 out",
        "fp8, KV fp8, TP1",
        "cannot be told",
        "40 requests/s take",
        "Expect to be off by a third",
        "every lane: fp8 TP1 to fp8 TP8",
        "Left out",
        "[precision-architecture]",
    ):
        assert wanted in shown


def test_options_replace_what_a_manifest_says() -> None:
    asked = ("-f", str(ROOT / "examples" / "engines" / "llama-3-8b-vllm.yaml"))
    plain, other = (
        figures(*asked),
        figures(*asked, "--prompt-tokens", "512", "--itl", "0.02", "--profile", "latency"),
    )
    assert plain["ask"]["prompt_tokens"] == 4096
    assert other["ask"] == {"prompt_tokens": 512, "output_tokens": 1024, "ttft_s": 1.0, "itl_s": 0.02}
    assert other["spec"]["profile"] == "latency"


def test_a_picture_is_drawn(tmp_path: Path) -> None:
    picture = tmp_path / "plan.svg"
    planned("-f", "examples/engines/llama-3-8b.yaml", "--picture", str(picture))
    assert picture.read_text().startswith("<svg")


def test_all_specs_of_a_folder_are_planned(tmp_path: Path) -> None:
    for path in EXAMPLES[:2]:
        (tmp_path / path.name).write_text(path.read_text())
    assert len(json.loads(planned("-f", str(tmp_path), "--json"))) == 2
    with pytest.raises(CommandError, match="draws one plan"):
        planned("-f", str(tmp_path), "--picture", str(tmp_path / "x.svg"))


@pytest.mark.parametrize(
    ("arguments", "said", "remedy"),
    [
        (["--precision", "fp8", "--gpu-class", "a100-sxm-80gb"], "SM 80.*has no FP8 units", "int8-sq"),
        (["--precision", "fp7", "--gpu-class", "h100-sxm"], "precision: Input should be", "--help"),
        (["--gpu-class", "h1000"], "no figures of", "h100-sxm"),
        (["--prompt-tokens", "9000", "--gpu-class", "h100-sxm"], "8192 positions", "--prompt-tokens"),
        ([], "needs --gpu-class", "h100-sxm"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(arguments: list[str], said: str, remedy: str) -> None:
    with pytest.raises(CommandError, match=said) as caught:
        planned("--checkpoint", LLAMA_8B, *arguments)
    assert remedy in str(caught.value.remedy)


def test_70b_in_16_bits_on_one_gpu_is_refused(tmp_path: Path) -> None:
    manifest = yaml.safe_load((ROOT / "examples" / "engines" / "llama-3-70b-tp4.yaml").read_text())
    manifest["spec"] |= {"precision": "bf16", "kv_cache": "auto", "tensor_parallel": 1}
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(manifest))
    with pytest.raises(CommandError, match=r"131\.4 GiB of weights"):
        planned("-f", str(path))


def test_int8_kv_with_reuse_is_refused(tmp_path: Path) -> None:
    manifest = yaml.safe_load((ROOT / "examples" / "engines" / "llama-3-8b.yaml").read_text())
    manifest["spec"] |= {"kv_cache": "int8"}
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(manifest))
    with pytest.raises(CommandError, match="with it paged_context_fmha, kv_reuse"):
        planned("-f", str(path))


def test_files_that_say_nothing_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text("kind: Model\nname: chat\ncontext_length: 8192\n")
    with pytest.raises(CommandError, match="no EngineSpec"):
        planned("-f", str(path))
    path.write_text("kind: EngineSpec\nname: x\nprecison: fp8\n")
    with pytest.raises(CommandError, match="precison"):
        planned("-f", str(path))
    with pytest.raises(CommandError, match="either --file or --checkpoint"):
        planned()
    with pytest.raises(CommandError, match="does not exist"):
        planned("--checkpoint", str(tmp_path / "none"), "--gpu-class", "l4")
    with pytest.raises(CommandError, match="--out"):
        planned("-f", "examples/engines/llama-3-8b.yaml", "--out", str(path / "below.yaml"))
