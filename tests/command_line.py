"""The command line as tests run it: in a process of its own, or in theirs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from unittest.mock import patch

import pytest

from enginehouse.cli import main


def plain_environment(**more: str) -> dict[str, str]:
    """This process's, without what it may say of an enginehouse, and `more`."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("ENGINEHOUSE_")}
    return {**own, "COLUMNS": "200", **more}


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """`enginehouse ARGUMENTS` in a process of its own; see `run_here`."""
    return subprocess.run(
        [sys.executable, "-m", "enginehouse", *arguments],
        env=plain_environment(**variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def run_here(*arguments: str, said: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    """The same in this process, which has imported what a new one would take most of its time for."""
    out, errors = StringIO(), StringIO()
    with (
        patch.dict(os.environ, plain_environment(**variables), clear=True),
        patch("sys.argv", ["enginehouse", *arguments]),
        patch("sys.stdin", StringIO(said)),
        redirect_stdout(out),
        redirect_stderr(errors),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    return subprocess.CompletedProcess(arguments, ended.value.code or 0, out.getvalue(), errors.getvalue())


@contextmanager
def begun(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """`enginehouse ARGUMENTS` in a process of its own."""
    with subprocess.Popen(
        [sys.executable, "-m", "enginehouse", *arguments],
        env=plain_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def said_at_ctrl_c(process: subprocess.Popen[str]) -> str:
    """Its last words."""
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    return errors.strip()
