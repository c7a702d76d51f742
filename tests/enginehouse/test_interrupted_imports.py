"""Ctrl-C while a command still imports what it needs ends it, and a broken installation is no Ctrl-C."""

from __future__ import annotations

import pytest

from enginehouse import cli
from enginehouse.cli import INTERRUPTED


def _import_cut_off() -> None:
    """As pydantic and numpy answer a KeyboardInterrupt in their set-up."""
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        raise ImportError("numpy._core.umath failed to import")  # noqa: B904 - as an extension does


def _import_broken() -> None:
    raise ImportError("libfoo.so: cannot open shared object file")


def test_an_import_that_was_cut_off_is_an_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "app", _import_cut_off)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == INTERRUPTED


def test_another_error_is_shown_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "app", _import_broken)
    with pytest.raises(ImportError, match="libfoo"):
        cli.main()
