"""Stores: nobody sees half an engine, the same one is published once, and what nothing names can go."""

from __future__ import annotations

import datetime
import os
import shutil
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest

from engine_builder.errors import PackageError, StoreError
from engine_builder.package import (
    Trust,
    engine_of,
    fetch,
    list_published,
    publish,
    read_manifest,
    remove,
    store,
)
from engine_builder.package.garbage import collect
from tests.engine_builder.packages import BUILT_AT, SIGNER, real_package
from tests.enginehouse.test_written import no_room_beyond

TRUST = Trust.of(SIGNER)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return real_package(tmp_path_factory.mktemp("real"))


@pytest.fixture(scope="module")
def same_again(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same inputs built a second time: other bytes, as compilers are."""
    again = tmp_path_factory.mktemp("again")
    made = real_package(again)
    (again / "compile/rank0.engine").write_bytes(b"another engine of rank 0")
    shutil.rmtree(made)
    return real_package_of(again)


def real_package_of(folder: Path) -> Path:
    """Packages what is in `compile` already."""
    from engine_builder.checkpoint import Checkpoint
    from engine_builder.identity import engine_digest
    from engine_builder.package import package
    from engine_builder.repository.model_files import from_installation
    from model_registry.engine_specs import Lora
    from tests.engine_builder.packages import CHAT_MODEL, spec

    wanted, checkpoint = spec(tensor_parallel=2, lora=Lora(max_rank=8)), Checkpoint.open(str(CHAT_MODEL))
    return package(
        wanted,
        checkpoint,
        {"compile": folder / "compile"},
        engine_digest(wanted, checkpoint.digest(), "tensorrt-llm"),
        "tensorrt-llm",
        folder / "packages",
        SIGNER,
        finish=from_installation(folder / "all_models"),
        built_at=BUILT_AT,
    )


@pytest.fixture(params=["folder", "objects"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder, and what has no rename."""
    return str(tmp_path / "store") if request.param == "folder" else f"memory://{uuid.uuid4().hex}/engines"


def test_a_published_engine_is_listed_fetched_and_removed(
    store_url: str, folder: Path, tmp_path: Path
) -> None:
    assert list_published(store_url) == []
    url = publish(folder, store_url)
    (found,) = list_published(store_url)
    assert (found.url, found.manifest) == (url, read_manifest(folder))
    engine = engine_of(found)
    assert (engine.name, engine.url, engine.gpus, engine.routable) == (folder.name, url, 2, False)
    assert fetch(url, tmp_path / "served", TRUST) == found.manifest
    remove(url)
    assert list_published(store_url) == []
    with pytest.raises(StoreError):
        fetch(url, tmp_path / "again", TRUST)


@pytest.mark.parametrize("key", ["../../escaped", "/escaped", "engine/../../../escaped", "./escaped"])
def test_a_key_of_an_object_store_leads_nowhere_else(folder: Path, tmp_path: Path, key: str) -> None:
    url = publish(folder, f"memory://{uuid.uuid4().hex}/engines")
    objects = fsspec.filesystem("memory")
    path = objects._strip_protocol(url)
    objects.store[f"{path}/{key}"] = objects.store[f"{path}/manifest.json"]
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(StoreError, match="is no file below it"):
        fetch(url, tmp_path / "served" / "here", TRUST)
    assert [path for path in sorted(tmp_path.rglob("*")) if path.is_file()] == before
    remove(url)


def test_a_full_disk_is_one_line_and_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    """A copy of a folder fails with a list of all its files."""
    url = publish(folder, str(tmp_path / "store"))
    for copy in (lambda: fetch(url, tmp_path / "served", TRUST), lambda: publish(folder, f"{tmp_path}/b")):
        with no_room_beyond(10), pytest.raises(StoreError, match=r"File too large.*, and \d+ more$"):
            copy()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "store"]
    assert list((tmp_path / "b").iterdir()) == []


def test_a_link_in_a_store_is_not_followed(folder: Path, tmp_path: Path) -> None:
    """Its target may be anything, also what is changed once the engine was verified."""
    url = Path(publish(folder, str(tmp_path / "store")))
    original = url / "engine" / "rank0.engine"
    original.rename(tmp_path / "outside")
    original.symlink_to(tmp_path / "outside")
    with pytest.raises(PackageError, match=r"engine/rank0.engine \(a link\)"):
        fetch(str(url), tmp_path / "served", TRUST)
    assert not (tmp_path / "served").exists()


def test_the_same_engine_is_published_once_whatever_its_bytes(
    store_url: str, folder: Path, same_again: Path, tmp_path: Path
) -> None:
    """Two builds of the same inputs differ in bytes; the first one stands, whole."""
    url = publish(folder, store_url)
    assert (folder / "manifest.json").read_bytes() != (same_again / "manifest.json").read_bytes()
    assert publish(same_again, store_url) == publish(folder, store_url) == url
    assert len(list_published(store_url)) == 1
    fetch(url, tmp_path / "served", TRUST)
    assert (tmp_path / "served/engine/rank0.engine").read_bytes() == b"engine of rank 0"


def test_publishers_that_race_leave_one_whole_engine(folder: Path, same_again: Path, tmp_path: Path) -> None:
    at, start = str(tmp_path / "store"), threading.Barrier(4)

    def race(package: Path) -> str:
        start.wait()
        return publish(package, at)

    with ThreadPoolExecutor(4) as pool:
        urls = list(pool.map(race, [folder, same_again, folder, same_again]))
    assert len(set(urls)) == 1
    assert [path.name for path in Path(at).iterdir()] == [folder.name]
    fetch(urls[0], tmp_path / "served", TRUST)


@pytest.mark.parametrize("at", ["engine/rank1.engine", "manifest.sig", "repository/ensemble/config.pbtxt"])
def test_an_upload_that_is_cut_off_is_no_engine(
    at: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever file it gets to: the manifest comes last."""
    url = f"memory://{uuid.uuid4().hex}/engines"
    filesystem = fsspec.filesystem("memory")
    put = type(filesystem).put_file

    def put_until(self: object, local: str, remote: str, **more: object) -> None:
        if remote.endswith(at):
            raise OSError("the line is cut")
        put(self, local, remote, **more)

    monkeypatch.setattr(type(filesystem), "put_file", put_until)
    with pytest.raises(StoreError, match="the line is cut"):
        publish(folder, url)
    assert list_published(url) == []
    monkeypatch.undo()
    publish(folder, url)
    assert len(list_published(url)) == 1


def test_a_copy_that_is_cut_off_is_no_engine_and_cleaned_up_when_old(folder: Path, tmp_path: Path) -> None:
    at = tmp_path / "store"
    publish(folder, str(at))
    left = at / ".uploading-1234"
    shutil.copytree(folder, left)
    assert len(list_published(str(at))) == 1
    assert store.leftovers(str(at)) == []
    old_s = left.stat().st_mtime - 2 * store.STALE_S
    os.utime(left, (old_s, old_s))
    assert store.leftovers(str(at)) == [str(left)]
    store.remove_leftover(str(left))
    assert not left.exists()


def test_another_engine_of_the_same_name_is_refused(folder: Path, tmp_path: Path) -> None:
    at = str(tmp_path / "store")
    publish(folder, at)
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    text = (other / "manifest.json").read_text()
    digest = read_manifest(folder).engine_digest
    (other / "manifest.json").write_text(text.replace(digest, digest[:12] + "0" * 52))
    with pytest.raises(StoreError, match="has another engine named"):
        publish(other, at)


def test_only_old_engines_that_nothing_names_are_collected(folder: Path, tmp_path: Path) -> None:
    publish(folder, str(tmp_path))
    published = list_published(str(tmp_path))
    later = BUILT_AT + datetime.timedelta(days=8)
    (gone,) = collect(published, set(), later, keep_days=7)
    assert (gone.removed, gone.reason) == (True, "no deployment refers to it")
    (named,) = collect(published, {folder.name}, later, keep_days=7)
    assert not named.removed
    (young,) = collect(published, set(), BUILT_AT + datetime.timedelta(days=6), keep_days=7)
    assert (young.removed, young.reason) == (False, "built 6.0 days ago")
