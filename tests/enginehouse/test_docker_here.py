"""Doctor tells of Docker: that it is there, that it is of no use as it is, or that there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from enginehouse.doctor import check_docker

DAEMON = 'case "$1" in version) echo 28.2.2;; compose) echo v2.36.0;; esac'
NO_DAEMON = 'case "$1" in version) echo Cannot connect >&2; exit 1;; esac'
NO_COMPOSE = 'case "$1" in version) echo 28.2.2;; compose) exit 1;; esac'


@pytest.mark.parametrize(
    ("client", "level", "found", "remedy"),
    [
        (None, "optional", "none", "apt install docker.io"),
        (DAEMON, "ok", "daemon 28.2.2, Compose v2.36.0", ""),
        (NO_DAEMON, "lacks part", "no daemon answers", "systemctl start docker"),
        (NO_COMPOSE, "lacks part", "no Compose", "apt install docker.io docker-compose"),
    ],
)
def test_doctor_says_what_there_is_of_docker(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    client: str | None,
    level: str,
    found: str,
    remedy: str,
) -> None:
    """By the programs on PATH; `up` can run without any of them."""
    monkeypatch.setenv("PATH", str(tmp_path))
    if client is not None:
        (tmp_path / "docker").write_text(f"#!/bin/sh\n{client}\n")
        (tmp_path / "docker").chmod(0o755)
    finding = check_docker()
    assert (finding.level, finding.blocks) == (level, False)
    assert found in finding.found
    assert remedy in finding.remedy
