"""`enginehouse engines`: from a packaged folder to where it is served, and out of the store again."""

from __future__ import annotations

import asyncio
import datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from engine_builder.errors import SignatureError
from engine_builder.package.signing import Signer
from enginehouse.builder_errors import told
from enginehouse.cli import app
from enginehouse.engine_places import EnginePlaces
from enginehouse.errors import CommandError
from model_registry.engines import Engine
from model_registry.entities import Deployment, Model, ServerRef
from model_registry.rollouts import Rollout
from model_registry.store import RegistryStore
from model_registry.watcher import Watcher
from tests.engine_builder.packages import emulated_package
from tests.enginehouse.test_written import no_room_beyond
from tests.gateway.test_admin import ADMIN, Admin, admin, watcher
from tests.model_registry.conftest import config, redis_client, redis_server, store

__all__ = ["admin", "config", "redis_client", "redis_server", "store", "watcher"]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def package(tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Signed by this machine's own key, which is made at its first use."""
    monkeypatch.setattr("tests.engine_builder.packages.SIGNER", EnginePlaces.find(state_dir=state).signer)
    return emulated_package(tmp_path)


def run(state: Path, *arguments: str, more: tuple[str, ...] = ()) -> str:
    """What a command prints; raises what stops it."""
    command = ["engines", *arguments, "--state-dir", str(state), *more]
    result = CliRunner().invoke(app, command, env={"COLUMNS": "200"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def test_an_engine_goes_from_a_folder_to_the_store_to_its_server(
    package: Path, state: Path, tmp_path: Path
) -> None:
    name = package.name
    assert f"{name} is at {state / 'engines' / name}" in run(state, "publish", str(package))
    assert name in run(state, "list")
    assert "runtime: emulated" in run(state, "show", name)
    assert "files are as they were signed" in run(state, "verify", name)
    shown = run(state, "fetch", name, str(tmp_path / "served"), "--served-at", "/models/depot")
    assert f"start:  {tmp_path / 'served/serve/launch/triton.sh'}" in shown
    assert (
        "/models/depot/engine" in (tmp_path / "served/serve/repository/tensorrt_llm/config.pbtxt").read_text()
    )
    (tmp_path / "served/engine/config.json").write_text("{}")
    with pytest.raises(CommandError, match="is not as it was signed"):
        run(state, "verify", str(tmp_path / "served"))
    with pytest.raises(CommandError, match="is not empty"):
        run(state, "fetch", name, str(tmp_path / "served"))
    with pytest.raises(CommandError, match="has no engine 'nothing'"):
        run(state, "show", "nothing")


def test_engines_of_others_want_their_key(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    with pytest.raises(CommandError, match="which is not trusted"):
        run(other, "publish", str(package))
    theirs = EnginePlaces.find(state_dir=tmp_path / "state").signing_key
    monkeypatch.setenv("ENGINEHOUSE_ENGINES__TRUSTED_KEYS", f'["{theirs.with_suffix(".pub.pem")}"]')
    assert "is at" in run(other, "publish", str(package))


def test_a_key_is_made_once(state: Path, tmp_path: Path) -> None:
    shown = CliRunner().invoke(app, ["engines", "keygen", str(tmp_path / "release.pem")]).output
    assert f"for engines.trusted_keys of others: {tmp_path / 'release.pub.pem'}" in shown
    Signer.load(tmp_path / "release.pem")
    again = CliRunner().invoke(app, ["engines", "keygen", str(tmp_path / "release.pem")])
    assert isinstance(again.exception, CommandError)
    assert isinstance(again.exception.__cause__, SignatureError)


async def test_what_no_deployment_names_goes_with_its_record_when_told_to(
    package: Path, state: Path, admin: Admin, watcher: Watcher, store: RegistryStore
) -> None:
    gateway = ("--url", str(admin.make_url("/")), "--key", ADMIN)
    published = await asyncio.to_thread(run, state, "publish", str(package), more=gateway)
    assert "its record is in the registry" in published
    engine = await store.get("Engine", package.name)
    assert isinstance(engine, Engine)
    assert engine.built_at < datetime.datetime.now(datetime.UTC)
    await rolled_out(store, package.name)
    kept = await asyncio.to_thread(run, state, "gc", "--keep-days", "0", "--delete", more=gateway)
    assert f"{package.name}: kept" in kept, "a rollout's candidate has weight 0 and is in use all the same"
    assert await store.get("Engine", package.name) is not None
    await store.delete("Model", "chat", cascade=True)
    dry = await asyncio.to_thread(run, state, "gc", "--keep-days", "0", more=gateway)
    assert f"{package.name}: would be removed: no deployment refers to it" in dry
    assert (state / "engines" / package.name).is_dir()
    done = await asyncio.to_thread(run, state, "gc", "--keep-days", "0", "--delete", more=gateway)
    assert f"{package.name}: removed" in done
    assert list((state / "engines").iterdir()) == []
    assert await store.get("Engine", package.name) is None


async def rolled_out(store: RegistryStore, engine: str) -> None:
    """A rollout under way, to a deployment of `engine`."""
    deployed = {"model": "chat", "servers": (ServerRef(http="http://127.0.0.1:1"),)}
    await store.apply(
        [
            Model(name="chat", context_length=100),
            Deployment(name="old", **deployed),
            Deployment(name="new", engine=engine, weight=0, **deployed),
            Rollout(name="r", model="chat", stable="old", candidate="new"),
        ]
    )


def test_no_room_where_an_engine_is_fetched_to_is_said(package: Path, state: Path, tmp_path: Path) -> None:
    """Nothing is left there. The limit of a file's size stands for a disk that is full."""
    run(state, "publish", str(package))
    with no_room_beyond(1024), pytest.raises(CommandError, match="too large"):
        run(state, "fetch", package.name, str(tmp_path / "served"))
    assert not (tmp_path / "served").exists()


def test_a_file_that_cannot_be_read_or_written_is_named() -> None:
    """Wherever it comes up: no traceback."""
    with pytest.raises(CommandError, match="/engines/x: No space left on device"), told():
        raise OSError(28, "No space left on device", "/engines/x")
    with pytest.raises(CommandError, match="not UTF-8"), told():
        b"\xff".decode()
