"""Benchmarks and live campaigns are asked for alike, and end alike."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.build import BenchError
from bench.campaign import concluded
from enginehouse.errors import CommandError

SOURCES = {path: path.read_text() for path in Path("bench").rglob("*.py")}
MODULES = sorted(
    ".".join(path.with_suffix("").parts).removesuffix(".__main__")
    for path, text in SOURCES.items()
    if "concluded(" in text and path.name != "campaign.py"
)


def module(name: str) -> Any:
    found = importlib.import_module(name)
    return importlib.import_module(f"{name}.__main__") if hasattr(found, "__path__") else found


@pytest.mark.parametrize("name", MODULES)
def test_every_help_has_an_example(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", [name, "--help"])
    with pytest.raises(SystemExit) as ended:
        module(name).main()
    assert ended.value.code == 0
    assert f"Example: python -m {name}" in capsys.readouterr().out


def test_a_result_is_told_at_one_place() -> None:
    assert len(MODULES) >= 15
    assert [path.name for path, text in SOURCES.items() if '"RESULT " +' in text] == ["campaign.py"]


def ends_with(result: dict[str, Any] | BaseException) -> Callable[[], dict[str, Any]]:
    def work() -> dict[str, Any]:
        if isinstance(result, BaseException):
            raise result
        return result

    return work


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize(
    ("result", "status"),
    [
        ({"ok": True, "x": 1}, 0),
        ({"ok": False}, 1),
        (BenchError("no compiler"), 2),
        (CommandError("no Redis", "install one"), 2),
    ],
)
def test_the_last_line_is_the_result_and_its_verdict_the_status(
    result: dict[str, Any] | BaseException, status: int, later: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    work = ends_with(result)

    async def works() -> dict[str, Any]:
        return work()

    assert concluded(works() if later else work) == status
    said = json.loads(capsys.readouterr().out.splitlines()[-1].removeprefix("RESULT "))
    assert said == (result if isinstance(result, dict) else {"ok": False, "error": str(result)})


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_without_a_result(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    async def works() -> dict[str, Any]:
        os.kill(os.getpid(), number)
        await asyncio.sleep(20)
        return {"ok": True}

    assert concluded(works()) == 130
    assert capsys.readouterr().out == ""
