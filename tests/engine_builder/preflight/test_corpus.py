"""Preflight finds what is wrong with repositories that people reported, names the fix, and nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from engine_builder.package import Trust, fetch
from engine_builder.package.locate import write_served
from engine_builder.package.manifest import read_manifest
from engine_builder.preflight.lint import lint
from engine_builder.preflight.subject import Subject
from tests.engine_builder.packages import CHAT_MODEL, SIGNER, emulated_package, real_package
from tests.engine_builder.preflight.mutations import REPOSITORY, mutate

CORPUS = Path(__file__).parent / "corpus"
TRUST = Trust.of(SIGNER)
ENTRIES: list[tuple[str, dict[str, Any]]] = [
    (file.stem, entry) for file in sorted(CORPUS.glob("*.yaml")) for entry in yaml.safe_load(file.read_text())
]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Fetched engines by the corpus that changes them."""
    folder = tmp_path_factory.mktemp("good")
    packages = {
        "tensorrt_llm": real_package(folder / "trt"),
        "llmapi": real_package(folder / "llm", lane="llmapi", lora=None),
        "emulated": emulated_package(folder / "cpu"),
    }
    for name, package in packages.items():
        fetch(str(package), folder / name, TRUST, checkpoint=str(CHAT_MODEL))
    return {name: folder / name for name in packages}


def copied(good: Path, folder: Path) -> Path:
    """The same engine, fetched to another place."""
    shutil.copytree(good, folder)
    write_served(folder, read_manifest(folder), str(folder), str(CHAT_MODEL))
    return folder


def test_at_least_thirty_entries_are_of_reports() -> None:
    reported = {entry["name"] for _, entry in ENTRIES if entry["source"].startswith("https://github.com/")}
    assert len(reported) >= 30
    assert len({entry["name"] for _, entry in ENTRIES}) == len(ENTRIES)


@pytest.mark.parametrize("name", ["tensorrt_llm", "llmapi", "emulated"])
def test_good_engines_pass_fetched_or_not_and_as_mere_repositories(
    name: str, good: dict[str, Path], tmp_path: Path
) -> None:
    fetched = copied(good[name], tmp_path / "engine")
    published = tmp_path / "published"
    shutil.copytree(good[name], published, ignore=shutil.ignore_patterns("serve"))
    for folder in (fetched, published, fetched / REPOSITORY):
        failed = [check for check in lint(Subject.read(folder), TRUST) if not check.passed]
        assert failed == [], folder


def test_weights_that_changed_where_they_stayed_are_found(good: dict[str, Path], tmp_path: Path) -> None:
    """The same files but for one byte; a build cache that goes by the path would not see it."""
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(CHAT_MODEL, checkpoint)
    folder = tmp_path / "engine"
    shutil.copytree(good["llmapi"], folder)
    write_served(folder, read_manifest(folder), str(folder), str(checkpoint))
    assert [check.name for check in lint(Subject.read(folder), TRUST) if not check.passed] == []
    weights = bytearray((checkpoint / "weights.npz").read_bytes())
    weights[-1] ^= 1
    (checkpoint / "weights.npz").write_bytes(weights)
    (failed,) = (check for check in lint(Subject.read(folder), TRUST) if not check.passed)
    assert (failed.name, failed.remedy.split(",")[0]) == ("checkpoint", "bring back that checkpoint")


@pytest.mark.parametrize(
    ("kind", "entry"), ENTRIES, ids=[f"{kind}-{entry['name']}" for kind, entry in ENTRIES]
)
def test_a_broken_repository_is_caught_and_its_fix_named(
    kind: str, entry: dict[str, Any], good: dict[str, Path], tmp_path: Path
) -> None:
    folder = copied(good[kind], tmp_path / "engine")
    for mutation in entry.get("mutations", [entry.get("mutation")]):
        mutate(folder, mutation)
    subject = Subject.read(
        folder if entry.get("package") else folder / REPOSITORY,
        gpu_class=entry.get("gpu_class"),
        server_version=entry.get("server_version"),
    )
    failed = {check.name: check for check in lint(subject, TRUST) if not check.passed}
    assert entry["check"] in failed, sorted(failed)
    check = failed.pop(entry["check"])
    assert entry["fix"] in check.remedy, (check.detail, check.remedy)
    assert set(failed) <= set(entry.get("also", ())), failed
