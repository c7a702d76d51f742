"""The jobs of the stack: secrets made once, models registered, health told."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest
from aiohttp import web

from enginehouse.containers import probe, secrets
from enginehouse.errors import MachineError, SettingsError
from enginehouse.heartbeat import beat, check


def test_secrets_are_made_once_and_agree(tmp_path: Path) -> None:
    """Redis, its clients and the registry have the same password; a second run changes nothing."""
    made = secrets.make(tmp_path)
    texts = {name: (tmp_path / name).read_text().strip() for name in made}
    password = texts["redis/password"]
    assert texts["redis/redis.conf"] == f"requirepass {password}"
    assert texts["registry/redis_url"] == f"redis://:{password}@redis:6379/0"
    assert len(set(texts.values())) == len(texts) == 6
    assert not secrets.make(tmp_path)
    assert texts == {name: (tmp_path / name).read_text().strip() for name in made}
    assert {(tmp_path / name).stat().st_mode & 0o777 for name in made} == {0o440}


def test_what_is_missing_is_made_to_fit(tmp_path: Path) -> None:
    """After a job that was killed half-way: Redis's new files hold the password that clients know."""
    secrets.make(tmp_path)
    password = (tmp_path / "redis" / "password").read_text().strip()
    (tmp_path / "redis" / "redis.conf").unlink()
    assert secrets.make(tmp_path) == ["redis/redis.conf"]
    assert password in (tmp_path / "redis" / "redis.conf").read_text()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """With what to do."""
    (tmp_path / "redis").write_text("a file")
    with pytest.raises(MachineError, match="cannot be written") as refused:
        secrets.make(tmp_path)
    assert "user 10001" in (refused.value.remedy or "")


@pytest.mark.parametrize(("status", "said"), [(200, None), (503, "answers 503: draining")])
async def test_a_url_has_to_answer_200(status: int, said: str | None) -> None:
    """Else the probe says what it answered."""

    async def answer(_request: web.Request) -> web.Response:
        return web.Response(status=status, text="draining")

    app = web.Application()
    app.router.add_get("/readyz", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    found = await asyncio.to_thread(probe.problem, f"http://127.0.0.1:{port}/readyz", 0.0)
    await runner.cleanup()
    assert (found is None) if said is None else (said in (found or ""))
    gone = await asyncio.to_thread(probe.problem, f"http://127.0.0.1:{port}/readyz", 0.0)
    assert "refused" in (gone or "")


def test_a_file_has_to_be_young(tmp_path: Path) -> None:
    """Fifteen seconds, so that a slow machine may miss several beats."""
    file = tmp_path / "alive"
    assert "No such file" in (probe.problem(str(file), time.time()) or "")
    check(file)
    assert probe.problem(str(file), time.time()) is None
    assert "written 16 s ago" in (probe.problem(str(file), file.stat().st_mtime + 16) or "")


async def test_only_the_well_beat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is not touched grows old."""
    monkeypatch.setattr("enginehouse.heartbeat.PERIOD_S", 0.001)
    file, well, asked = tmp_path / "alive", True, asyncio.Event()

    def healthy() -> bool:
        asked.set()
        return well

    check(file)
    os.utime(file, (0, 0))
    beating = asyncio.create_task(beat(file, healthy))
    await asked.wait()
    assert file.stat().st_mtime > 0
    well = False
    os.utime(file, (0, 0))
    asked.clear()
    await asked.wait()
    assert file.stat().st_mtime == 0
    beating.cancel()


def test_a_file_that_cannot_be_written_stops_the_start(tmp_path: Path) -> None:
    """It is named, by its setting."""
    with pytest.raises(SettingsError, match=r"controller\.alive_file .*none/alive"):
        check(tmp_path / "none" / "alive")
